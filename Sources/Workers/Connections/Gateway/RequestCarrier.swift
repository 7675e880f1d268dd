// What carries a request to an API out, from the worker's side.

import HTTP

protocol RequestCarrier: StreamedExchange {
  /// What has authorised the request has ended. Nobody gets anything more of it: it is answered by the refusal, or, if its answer has
  /// begun, broken off; the service is told that its client has gone. Nothing happens if it is over.
  func breakOff(_ refusal: RefusedRequest)
}
