// Which fields may stand behind a body, in requests and in answers (RFC 9110 §6.5.1).

import Kit
import NIOHTTP1

enum TrailerFields {
  /// `fields` without those that must not be trailers.
  static func allowed(_ fields: HTTPHeaders) -> HTTPHeaders {
    guard !fields.isEmpty else { return fields }
    return HTTPHeaders(fields.filter { HeaderFields.mayBeTrailer($0.name) })
  }
}
