// Types that begin with `rig.` are the gateway's own, in whatever form an event says its type (contract §1).

import Testing

@testable import Kit
@testable import Links

@Suite("13.A1: types of the gateway's own events")
struct ReservedTypesTests {
  private let parser = Fixture.parser()

  private static func attributes(_ version: String, _ type: String) -> String {
    #""\#(version)":"\#(version == "cloudEventsVersion" ? "0.1" : "1.0")","source":"s","id":"1","eventID":"1",\#(type)"#
  }

  @Test(
    "are refused in structured mode, however they are written, with the attribute's name",
    arguments: [
      (#""type":"rig.connection.create""#, "type"), (#""type":"rig.""#, "type"),
      (#""type":"\u0072ig.session_killed""#, "type"), (#""type":"rig\u002Ex""#, "type"),
      (#""\u0074ype":"rig.x""#, "type"), (#""type":"rig.presence.join""#, "type"),
      (#""type":"greeting","eventType":"rig.x""#, "eventType"),
      (#""type":"greeting","Type":"rig.x""#, "Type"),
      (#""Type":"rig.x","type":"greeting""#, "Type"),
      (#""type":"greeting","TYPE":"a","tYpe":"rig.x""#, "tYpe"),
      (#""type":"greeting","type":"rig.x""#, "type"), (#""type":"rig.x","type":"greeting""#, "type"),
    ])
  func structured(member: String, name: String) {
    for allowsPlain in [false, true] {
      let error = refusal {
        try parser.parse("{\(Self.attributes("specversion", member))}", allowsPlain: allowsPlain)
      }
      #expect(error?.status == 400)
      #expect(error?.detail.hasPrefix("\(name) is 'rig.") == true, "\(error?.detail ?? "taken")")
    }
    #expect(
      refusal { try parser.parseBatch("[\(Fixture.event()),{\(Self.attributes("specversion", member))}]") }?
        .detail.hasPrefix("event 1 of the batch: \(name) is 'rig.") == true)
  }

  @Test("are refused in version 0.1, under the names of both generations")
  func oldest() {
    for member in [#""eventType":"rig.x""#, #""eventType":"greeting","type":"rig.x""#] {
      let error = refusal { try parser.parse("{\(Self.attributes("cloudEventsVersion", member))}") }
      #expect(error?.detail.contains("is 'rig.x': types that begin with 'rig.'") == true)
    }
  }

  @Test(
    "are refused in binary mode, quoted and percent-encoded too",
    arguments: [
      "rig.x", "%72ig.x", "rig%2Ex", "rig%2ex", #""rig.x""#, #""\r\i\g.x""#, #""%72ig.x""#, #""rig%2Ex""#,
    ])
  func binary(type: String) {
    for (version, name) in [("ce-specversion", "ce-type"), ("CE-CloudEventsVersion", "Ce-EventType")] {
      let headers = [
        (version, version == "ce-specversion" ? "1.0" : "0.1"), (name, type), ("ce-source", "s"),
        ("ce-id", "1"), ("ce-eventid", "1"),
      ]
      let error = refusal {
        try parser.submit("x".utf8, type: "text/plain", headers.map { (name: $0.0, value: $0.1) })
      }
      #expect(error?.status == 400)
      #expect(error?.detail.contains("is 'rig.x'") == true, "\(error?.detail ?? "taken")")
    }
  }

  @Test(
    "are refused in records, also in plain addressed objects that would look like an event over a WebSocket")
  func records() {
    let headers = [("ce_specversion", "1.0"), ("ce_type", "rig.x"), ("ce_source", "s"), ("ce_id", "1")]
    #expect(
      refusal { try parser.consume("x".utf8, headers.map { (name: $0.0, value: $0.1) }) }?.detail.contains(
        "is 'rig.x'") == true)
    for member in [
      #""type":"rig.connection.create""#, #""eventType":"rig.x""#, #""typ\u0065":"\u0072ig.x""#,
      #""type":"a","type":"rig.x""#, #""type":7,"TYPE":"rig.x""#,
    ] {
      let error = refusal { try parser.consume(#"{"user":"alice",\#(member),"data":{}}"#.utf8) }
      #expect(error?.status == 400 && error?.detail.contains("is 'rig.") == true, "\(member)")
    }
  }

  @Test(
    "are no others: what only resembles them, and members that are no types, are taken",
    arguments: [
      #""type":"rig""#, #""type":"rigging.x""#, #""type":"com.rig.x""#, #""type":"Rig.x""#,
      #""type":"a","data":{"type":"rig.x"}"#, #""type":"a","types":"rig.x""#,
      #""type":"a","subject":"rig.x""#,
      #""type":"a","eventType":["rig.x"]"#,
    ])
  func others(member: String) throws {
    _ = try parser.parse("{\(Self.attributes("specversion", member))}")
  }

  @Test("A quoted attribute in a header is unquoted, and what isn't one quoted text stays as it is")
  func quoted() throws {
    for (header, value) in [
      (#""a b""#, "a b"), (#""a\"b\\""#, #"a"b\"#), (#""a%20b""#, "a b"), (#"""#, #"""#),
      (#""a" "b""#, #""a" "b""#),
      (#""a\""#, #""a\""#), (#"a"b"#, #"a"b"#), (#""""#, ""),
    ] {
      #expect(AttributeRule.decodedHeader(header) == value, "\(header)")
    }
  }

  @Test("The gateway makes them by a way of its own, addressed to nobody, with their fields")
  func own() {
    let parser = Fixture.parser { $0.kafkaUserField = "subject" }
    let json = #"{"specversion":"1.0","type":"rig.presence.join","source":"rig","id":"1","subject":"alice"}"#
    let event = parser.own("rig.presence.join", id: "1", Array(json.utf8), acceptedAtNs: 7)
    #expect(event.type == "rig.presence.join" && event.users.isEmpty && event.text == json)
    // What the configuration would refuse of others goes out all the same.
    let odd = parser.own("rig.x", id: "2", Array(#"{"subject":[]}"#.utf8), acceptedAtNs: 7)
    #expect(odd.type == "rig.x" && odd.id == "2")
  }

  // MARK: Responses

  private func response(_ fields: [(String, String)], _ body: String) throws -> ServiceResponse {
    try ServiceResponse(
      correlation: "c", status: 200, fields: fields.map { (name: $0.0, value: Array($0.1.utf8)) },
      body: Array(body.utf8))
  }

  private static let forged = #"{"specversion":"1.0","type":"rig.x","source":"s","id":"1"}"#

  @Test(
    "A response that is such an event, or could be taken for one, is refused",
    arguments: [
      ([("content-type", "application/cloudevents+json")], forged),
      ([("content-type", "application/json")], forged),
      ([], forged), ([("content-type", "text/plain")], " \n" + forged), ([("ce-type", "rig.x")], "x"),
      ([("ce_type", "rig.x")], "x"), ([("ce-type", #""%72ig.x""#)], "x"), ([("ce_eventtype", "rig.x")], ""),
      ([("content-type", "application/cloudevents+json; charset=utf-8")], #"{"type":"rig.x"}"#),
      ([("content-type", "application/cloudevents-batch+json")], "[{},\(forged)]"),
      ([("content-type", "application/json")], "[1,\(forged)]"),
      ([], #"{"cloudEventsVersion":"0.1","eventType":"\u0072ig.x"}"#),
      ([], #"{"SpecVersion":"1.0","Type":"rig.x"}"#), ([], "\u{FEFF}" + forged),
    ] as [([(String, String)], String)])
  func forgedResponse(fields: [(String, String)], body: String) {
    let error = refusal { try response(fields, body) }
    #expect(
      error?.status == 400 && error?.detail.contains("is 'rig.x'") == true, "\(error?.detail ?? "taken")")
  }

  @Test(
    "Any other response passes, JSON or not",
    arguments: [
      ([("content-type", "application/json")], #"{"type":"rig.x"}"#),
      ([], #"{"specversion":"1.0","type":"a"}"#),
      ([], "{"), ([], "["), ([], "[1,{}]"), ([], ""), ([("ce-type", "a")], "rig.x"),
      ([("x-type", "rig.x")], "x"), ([], #"{"data":{"specversion":"1.0","type":"rig.x"}}"#),
    ] as [([(String, String)], String)])
  func otherResponse(fields: [(String, String)], body: String) throws {
    #expect(try response(fields, body).body == Array(body.utf8))
  }

  @Test("SUBMISSION_MAY_ADDRESS=off refuses what is addressed, by 403 with the setting's name")
  func addressed() throws {
    let plain = try parser.parse(Fixture.event())
    try parser.requireUnaddressed([plain])
    let addressed = try parser.parse(Fixture.event(#""user":"alice""#))
    let error = refusal { try parser.requireUnaddressed([plain, addressed]) }
    #expect(error?.status == 403)
    #expect(
      error?.detail == "user addresses users, which is not allowed here (SUBMISSION_MAY_ADDRESS is off)")
  }
}
