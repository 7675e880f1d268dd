// Who may use the management port when a token is configured, over a real socket.

import Settings
import Testing

@testable import Control

@Suite(.serialized) struct ManagementGuardTests {
  private static let token = "0123456789abcdef"

  private static var closed: Settings {
    var settings = Settings()
    settings.managementToken = Secret(token)
    return settings
  }

  @Test("Everything but health and metrics needs the token, what isn't there and RIG 1's paths included")
  func demanded() async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      for (method, path) in [
        ("GET", "/v3/apis"), ("POST", "/v3/apis"), ("GET", "/v2/apis/a"), ("POST", "/v3/messages"),
        ("POST", "/v2/messages"), ("POST", "/v3/session-blacklist"), ("GET", "/v3/session-blacklist/a"),
        ("GET", "/v3/sessions"), ("DELETE", "/v3/connections/0-1"), ("GET", "/rg/sessions"),
        ("GET", "/rg/sessions/a"), ("DELETE", "/rg/connections/a"), ("GET", "/nothing"),
        ("PATCH", "/v3/apis"), ("GET", "/health/"), ("GET", "//metrics"),
      ] {
        let answer = try client.ask(method, path)
        #expect(answer.status == 401, "\(method) \(path)")
        #expect(answer.header("www-authenticate") == "Bearer")
        #expect(answer.header("content-type") == "application/problem+json")
        let authorized = try client.ask(method, path, "authorization: bearer \(Self.token)\r\n")
        #expect(authorized.status != 401, "\(method) \(path)")
      }
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        #expect(try client.get(path).status == 200, "\(path)")
        #expect(try client.ask("POST", path).status == 405, "\(path)")
      }
    }
  }

  @Test(
    "A token that isn't the right one is refused, however alike it is",
    arguments: [
      "", "Bearer", "Basic \(token)", "Bearer \(token)0", "Bearer 0123456789abcde", "Bearer 0123456789abcdeF",
      "Bearer 0", "Bearer \(token)\(token)", token, "Bearer \(token)x, Bearer y",
    ])
  func refused(_ value: String) async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      let answer = try client.get("/v3/apis", "authorization: \(value)\r\n")
      #expect(answer.status == 401)
      #expect(answer.header("www-authenticate")?.hasPrefix("Bearer") == true)
      #expect(!answer.body.contains(Self.token))
    }
  }

  @Test("The right token opens every path, also beside others")
  func accepted() async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      for value in ["Bearer \(Self.token)", "bEaReR  \(Self.token)", "Bearer other, Bearer \(Self.token)"] {
        let answer = try client.get("/v3/apis", "authorization: \(value)\r\n")
        #expect(answer.status == 200, "\(value)")
      }
    }
  }
}
