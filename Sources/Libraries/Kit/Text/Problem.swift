// Error answers as documents (RFC 9457): what went wrong, for people and programs.

public enum Problem {
  /// `{"type":"about:blank","title":"Bad Request","status":400,"detail":"…"}`. `detail` names the field or header, what
  /// was found and what was expected.
  public static func json(status: Int, detail: String) -> [UInt8] {
    var json = Array(#"{"type":"about:blank","title":"#.utf8)
    JSONText.appendString(title(of: status), to: &json)
    json.append(contentsOf: #","status":\#(status),"detail":"#.utf8)
    JSONText.appendString(detail, to: &json)
    json.append(UInt8(ascii: "}"))
    return json
  }

  /// With `about:blank` the title is the status's phrase (§4.2.1).
  private static func title(of status: Int) -> String {
    switch status {
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 406: "Not Acceptable"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 410: "Gone"
    case 413: "Content Too Large"
    case 415: "Unsupported Media Type"
    case 417: "Expectation Failed"
    case 426: "Upgrade Required"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: "Error"
    }
  }
}
