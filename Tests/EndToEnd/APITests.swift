// API definitions: made, changed and removed at run time on every worker at once, kept over crashes, read at the start.
// Contract §8, §9.

import Foundation
import Testing

@Suite("API definitions")
struct APITests {
  @Test("A definition takes effect with its answer, on every worker, and ends with its removal")
  func lifeCycle() throws {
    let (first, second) = (
      try TestService(.answer(200, body: "first")), try TestService(.answer(200, body: "second"))
    )
    defer {
      first.stop()
      second.stop()
    }
    try Gateway.run { gateway in
      #expect(try gateway.inbound("GET", "/apis").text == "[]")
      #expect(try gateway.inbound("GET", "/books/1").status == 404)
      /// Of many requests, each over a connection of its own: no worker knows less.
      func answers() throws -> Set<String> {
        Set(
          try (0..<10).map { _ in
            let answer = try gateway.inbound("GET", "/books/1")
            return "\(answer.status) \(answer.status == 200 ? answer.text : "")"
          })
      }
      let created = try gateway.manageAPIs("POST", "/v3/apis", TestAPI(port: first.port).json)
      #expect(created.status == 201 && created.text == #"{"message":"ok"}"#)
      #expect(try answers() == ["200 first"])
      #expect(try gateway.manageAPIs("POST", "/v2/apis", TestAPI(port: first.port).json).status == 409)
      for path in ["/v3/apis", "/v2/apis"] {
        #expect(try gateway.management("GET", path).json.array?.count == 1)
      }
      #expect(try gateway.inbound("GET", "/apis/books").json["id"] == "books")
      #expect(try gateway.inbound("GET", "/apis", headers: [("x-forwarded-for", "10.0.0.1")]).status == 404)

      #expect(try gateway.manageAPIs("PUT", "/v3/apis/books", TestAPI(port: second.port).json).status == 200)
      #expect(try answers() == ["200 second"])
      #expect(try gateway.management("GET", "/v3/apis/books").json["ref_number"]?.integer == 1)
      #expect(try gateway.management("DELETE", "/v3/apis/books").status == 204)
      #expect(try answers() == ["404 "])
      let gone = try gateway.management("GET", "/v3/apis/books")
      #expect(gone.status == 404 && gone.text == #"{"message":"API with id=books doesn't exists."}"#)
      #expect(try gateway.management("DELETE", "/v3/apis/books").status == 404)
    }
  }

  @Test("What can't be a definition is refused with the fields that are wrong, and changes nothing")
  func refused() throws {
    try Gateway.run { gateway in
      let bad = try gateway.manageAPIs("POST", "/v3/apis", #"{"id":"a"}"#)
      #expect(bad.status == 400)
      #expect(try bad.json["api"]?.array?.contains(["proxy": "must be present"]) == true)
      let endpoint = TestAPI(port: 1, endpoint: #""method":"GET","path_regex":"(a","secured":true"#)
      let wrong = try gateway.manageAPIs("POST", "/v3/apis", endpoint.json)
      #expect(wrong.status == 400)
      #expect(try wrong.json["books/only"] != nil, "\(wrong.text)")
      for (members, named) in [
        (#""target":"kinesis","topic":"t""#, "target"), (#""target":"nats","topic":"t""#, "target"),
        (#""target":"http","response_from":"nats""#, "response_from"), (#""target":"kafka""#, "topic"),
        (#""target":"kafka","topic":"a b""#, "topic"),
      ] {
        let api = TestAPI(port: 1, endpoint: #""method":"GET","path_regex":"/a",\#(members)"#)
        let refused = try gateway.manageAPIs("POST", "/v3/apis", api.json)
        #expect(refused.status == 400 && refused.text.contains(named), "\(refused.text)")
      }
      #expect(try gateway.manageAPIs("POST", "/v3/apis", "[").status == 400)
      #expect(try gateway.management("POST", "/v3/apis", body: TestAPI(port: 1).json).status == 415)
      #expect(try gateway.manageAPIs("PUT", "/v3/apis/books", TestAPI(port: 1).json).status == 404)
      #expect(try gateway.management("PATCH", "/v3/apis/books").status == 405)
      #expect(try gateway.management("GET", "/v3/apis").text == "[]")
    }
  }

  @Test("Definitions survive the death of every worker, and their order too")
  func survival() throws {
    let (first, second) = (
      try TestService(.answer(200, body: "first")), try TestService(.answer(200, body: "second"))
    )
    defer {
      first.stop()
      second.stop()
    }
    try Gateway.run(["RESTART_INTENSITY": "100"]) { gateway in
      try gateway.define(TestAPI(id: "b", port: first.port))
      try gateway.define(TestAPI(id: "a", port: second.port))
      for kind in [WorkerKind.control, .connections, .connections, .proxies] {
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(kind).first))
        try eventually("requests are proxied again") {
          try gateway.inbound("GET", "/books/1").text == "first"
        }
        #expect(
          try gateway.management("GET", "/v3/apis").json.array?.compactMap { $0["id"]?.string } == ["b", "a"])
      }
      #expect(try gateway.management("DELETE", "/v3/apis/b").status == 204)
      #expect(try gateway.inbound("GET", "/books/1").text == "second")
    }
  }

  @Test("A damaged state ring: what was defined is gone everywhere, not only in some places")
  func damaged() throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    let settings = [
      "STATE_RING_BYTES": "65536", "WATCHDOG_S": "60",
      "PROXY_CONFIG_FILE":
        "[\(TestAPI(id: "kept", port: service.port, endpoint: #""method":"GET","path_regex":"/kept""#).json)]",
    ]
    try Gateway.run(settings) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let control = try #require(gateway.workers(.control).first)
      try TamperedRing("state.control", heldBy: control).scribble(at: TamperedRing.dataOffset, count: 65_536)
      try gateway.killAndAwaitReplacement(control)
      try eventually("every worker has forgotten it") {
        try (0..<10).allSatisfy { _ in try gateway.inbound("GET", "/books/1").status == 404 }
      }
      #expect(try gateway.management("GET", "/v3/apis").json.array?.count == 1)
      #expect(try gateway.inbound("GET", "/kept").status == 200)
    }
  }

  @Test("The gateway starts with the definitions of PROXY_CONFIG_FILE, given as a path or as JSON")
  func configuration() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    let directory = try TestDirectory()
    let path = directory.file("apis.json")
    let list = "[\(TestAPI(port: service.port, endpoint: #""method":"get","path_regex":"/books/1""#).json)]"
    try list.write(toFile: path, atomically: true, encoding: .utf8)
    for value in [path, list] {
      try Gateway.run(["PROXY_CONFIG_FILE": value]) { gateway in
        let answer = try gateway.inbound("GET", "/books/1")
        #expect(answer.text == "here")
      }
    }
  }

  @Test(
    "A mistake in PROXY_CONFIG_FILE stops the start and is named",
    arguments: [
      "[", #"[{"id":"a"}]"#, "/no/such/file", "[\(TestAPI(port: 99_999).json)]",
    ])
  func badConfiguration(value: String) throws {
    let run = try GatewayRun(
      [],
      environment: [
        "PROXY_CONFIG_FILE": value, "INBOUND_PORT": "0", "API_HTTP_PORT": "0", "RESTART_INTENSITY": "0",
      ])
    #expect(run.ending == .exited(78))
    #expect(run.output.contains("PROXY_CONFIG_FILE"), "\(run.output)")
  }
}
