// Origins and patterns of them: which pages a list takes.

import Testing

@testable import Settings

@Suite("13.A8: lists of origins")
struct OriginListTests {
  private static let list = OriginList([
    "https://app.example.com", "http://localhost:3000", "https://*.example.org", "https://*.example.net:8443",
    "capacitor://localhost", "http://[2001:db8::1]:80",
  ])

  @Test(
    "What is in it",
    arguments: [
      "https://app.example.com", "HTTPS://APP.example.COM", "https://app.example.com:443",
      "http://localhost:3000",
      "https://a.example.org", "https://a.b.c.example.org", "https://A.Example.Org",
      "https://x-y_z.example.org:443",
      "https://a.example.net:8443", "capacitor://localhost", "http://[2001:DB8::1]",
    ])
  func taken(origin: String) {
    #expect(Self.list.contains(origin))
  }

  @Test(
    "What isn't",
    arguments: [
      "", "null", "*", "https://", "https://app.example.com.evil.com", "https://app.example.com:8443",
      "http://app.example.com", "https://xapp.example.com", "app.example.com", "https://app.example.com/",
      "https://app.example.com, https://evil.com", "https://example.org", "https://.example.org",
      "https://a..example.org", "https://evil.com/.example.org", "https://evil.com?.example.org",
      "https://evil.com#.example.org", "https://evil.com\\.example.org", "https://evil@a.example.org",
      "https://evilexample.org", "https://a.example.org.evil.com", "https://a.example.org:8443",
      "http://a.example.org", "https://*.example.org", "https://a.example.net", "https://a.example.org:+443",
      "https://a.example.org:", "http://localhost", "http://localhost:30000", "capacitor://localhost:1",
      "http://2001:db8::1", "https://[a.example.org", "https://[::1].example.org", "https://ä.example.org",
      "https://a.example.org\u{0}", " https://app.example.com", "file://",
    ])
  func notTaken(origin: String) {
    #expect(!Self.list.contains(origin))
  }

  @Test("Pages without an origin are in it only where null is listed; with * everything is")
  func special() {
    #expect(OriginList(["null"]).contains("null") && !OriginList(["null"]).contains("https://a.example"))
    #expect(OriginList(["*"]).contains("null") && OriginList(["*"]).contains("what is no origin"))
    #expect(OriginList(["*"]).isAll && !OriginList(["https://*.example"]).isAll)
    #expect(!OriginList([]).contains("https://a.example"))
  }

  @Test("An origin is kept as a browser writes it, and a mistake is named with what a list may hold")
  func settings() throws {
    let text = " HTTPS://App.Example.com:443 , https://*.EXAMPLE.org:8443, null, http://[2001:DB8::1]:8080"
    #expect(
      try load(["CORS": text]).settings.cors == [
        "https://app.example.com", "https://*.example.org:8443", "null", "http://[2001:db8::1]:8080",
      ])
    #expect(try load(["CORS": ""]).settings.cors == ["*"])
    #expect(
      mistakes(["CORS": "https://a*.example.com"]).first?.contains(
        "'*' stands only for whole labels at the beginning of a host") == true)
    #expect(mistakes(["CORS": "https://a.example/x"]).first?.contains("https://*.example.com") == true)
  }
}
