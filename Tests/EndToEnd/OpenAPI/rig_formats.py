"""What the formats of the management API's document mean, for schemathesis (SCHEMATHESIS_HOOKS).

No schema can say which regular expressions are well formed: here are enough of them.
"""

import schemathesis
from hypothesis import strategies

segments = strategies.sampled_from(
    ["/", "/books", "/[^/]+", "/([^/]+)", "/(a|b)?", "/v[0-9]{1,3}", "/.*", "/%C3%A9", "/\\d+", "/(?:x|y)+"]
)
schemathesis.openapi.format("rig-pattern", strategies.lists(segments, min_size=1, max_size=4).map("".join))
schemathesis.openapi.format(
    "rig-replacement", strategies.sampled_from(["/", "/v1/\\1", "/a/\\0", "/\\g{1}?b=c", ""])
)
