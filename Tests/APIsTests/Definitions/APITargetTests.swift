// Where the service is.

import Testing

@testable import APIs

@Suite("API target")
struct APITargetTests {
  @Test(
    "scheme and host count, the port is the definition's own",
    arguments: [
      ("localhost", "http://localhost:3000"), ("http://localhost", "http://localhost:3000"),
      ("HTTPS://api.example.com/path?x", "https://api.example.com:3000"), ("http://h:9999", "http://h:3000"),
      ("http://[::1]", "http://[::1]:3000"), ("my_service-1", "http://my_service-1:3000"),
      ("10.0.0.1/", "http://10.0.0.1:3000"),
      ("http://h#@evil", "http://h:3000"),
    ])
  func origins(url: String, expected: String) {
    #expect(APITarget.origin(of: url, port: 3000)?.description == expected)
  }

  @Test(
    "what names no host is refused",
    arguments: [
      "", "http://", "ftp://h", "http://user@h", "h h", "h\r\nx", "http://[", "http://[]", "http://[x]",
      "//h", "://h",
    ])
  func refused(url: String) {
    #expect(APITarget.origin(of: url, port: 3000) == nil)
  }

  @Test("an environment variable is looked up when it is needed")
  func environment() throws {
    let json = try tree(#"{"use_env":true,"target_url":"API_HOST","port":80}"#)
    let target = APITarget(json)
    #expect(target.origin { $0 == "API_HOST" ? "https://h" : nil }?.description == "https://h:80")
    #expect(target.origin { _ in nil } == nil)
    #expect(APITarget.origin(of: "h", port: 0) == nil)
  }
}
