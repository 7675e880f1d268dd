// Which answer a parser error gets. The parser (llhttp) says what is wrong; where is not known, so the text names the
// rule that was broken.

import NIOHTTP1

enum ParserFailure {
  static func describe(_ error: any Error, limits: HTTPLimits) -> (HTTPResponseStatus, String) {
    guard let error = error as? HTTPParserError else { return (.badRequest, "malformed HTTP/1.1 request") }
    return switch error {
    case .invalidVersion, .paused:
      // The parser pauses at the preface of HTTP/2.
      (
        .httpVersionNotSupported,
        "HTTP version of the request line, expected HTTP/1.1 or HTTP/1.0, and then CRLF"
      )
    case .headerOverflow:
      (
        .requestHeaderFieldsTooLarge,
        "request head, expected at most \(limits.maxHeadBytes) bytes and \(limits.maxHeaderFields) fields"
      )
    case .invalidMethod: (.badRequest, "method of the request line, expected a method of RFC 9110 §9")
    case .invalidURL, .invalidHost, .invalidPort, .invalidPath, .invalidQueryString, .invalidFragment:
      (.badRequest, "target of the request line, expected a path beginning with / (RFC 9112 §3.2)")
    case .invalidHeaderToken:
      (.badRequest, "header field, expected name: value with a token as name (RFC 9112 §5)")
    case .invalidContentLength, .unexpectedContentLength:
      (.badRequest, "content-length, expected one decimal number and no transfer-encoding (RFC 9112 §6)")
    case .invalidChunkSize:
      (.badRequest, "chunk size of the body, expected hexadecimal digits (RFC 9112 §7.1)")
    case .lfExpected, .strictModeAssertion:
      (.badRequest, "line end, expected carriage return and line feed (RFC 9112 §2.2)")
    case .invalidConstant: (.badRequest, "request line, expected method, target and HTTP version")
    default: (.badRequest, "malformed HTTP/1.1 request (RFC 9112)")
    }
  }
}
