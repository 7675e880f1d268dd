// What is in the query of a request for a connection, and what can't be: the same on every transport. Contract §2.

import Testing

@Suite("Queries of connections")
struct QueryTests {
  private static let transports = ["sse", "ws", "longpolling"]

  private func answer(_ gateway: Gateway, _ transport: String, _ query: String) throws -> HTTPAnswer {
    let headers = transport == "ws" ? WebSocketClient.upgrade : []
    return try gateway.inbound("GET", "/_rig/v1/connection/\(transport)?\(query)", headers: headers)
  }

  @Test("14.C18 A parameter that is given twice is refused and named", arguments: transports)
  func twice(transport: String) throws {
    try Gateway.run { gateway in
      let one = "subscriptions=" + HTTP.encoded(Subscriptions.to("a"))
      let other = "subscriptions=" + HTTP.encoded(Subscriptions.to("b"))
      for (query, name) in [
        ("\(one)&\(other)", "subscriptions"), ("\(one)&jwt=a.b.c&jwt=d.e.f", "jwt"),
        ("lastEventId=1&lastEventId=2", "lastEventId"),
      ] {
        let answer = try answer(gateway, transport, query)
        try expectProblem(answer, 400, naming: name, "given 2 times")
      }
    }
    // An empty one says nothing, as ever.
    try Gateway.run { gateway in
      let client = try SSEClient(
        gateway, query: "subscriptions=&subscriptions=\(HTTP.encoded(Subscriptions.to("a")))&jwt=&jwt=")
      #expect(client.head.status == 200)
    }
  }

  @Test(
    "14.C18 A query that isn't UTF-8 is refused, and the parameter named without its value",
    arguments: transports)
  func encoding(transport: String) throws {
    try Gateway.run { gateway in
      for value in ["%FF", "%C3", "%C3%28", "%ED%A0%80", "secret%FE"] {
        for name in ["subscriptions", "jwt", "users[]", "unknown"] {
          let answer = try answer(gateway, transport, "a=1&\(name)=\(value)")
          try expectProblem(answer, 400, naming: "query parameter \(name) ", "UTF-8")
          #expect(!answer.text.contains("secret"))
        }
      }
      #expect(try answer(gateway, transport, "%FF").status == 400)
      let fine = try SSEClient(gateway, query: "a=%C3%BC&b=%EF%BF%BD&c=%&d=%zz")
      #expect(fine.head.status == 200)
    }
  }

  @Test("14.C18 Queries of services go on as they came")
  func proxied() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"GET","path_regex":"/x""#))
      #expect(try gateway.inbound("GET", "/x?a=%FF&a=2").status == 200)
      #expect(service.requests.last?.path == "/x?a=%FF&a=2")
    }
  }
}
