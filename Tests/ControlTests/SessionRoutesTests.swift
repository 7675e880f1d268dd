// Blacklist and presence over a real socket; the test plays the connection workers.

import COpenSSL
import Foundation
import IPC
import Kit
import Links
import Settings
import Testing
import Tokens

@testable import Control

@Suite(.serialized) struct SessionRoutesTests {
  private static let json = "application/json"
  private static let path = "/v3/session-blacklist"

  @Test(
    "A session is on the blacklist when it is added, under its percent-encoded name", arguments: ["v3", "v2"])
  func add(_ version: String) async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    try await gateway.served { client in
      #expect(try client.get("/\(version)/session-blacklist/a%20%2F%C3%A9").status == 404)
      let answer = try client.post(
        "/\(version)/session-blacklist", #"{"sessionId":"a /é","validityInSeconds":"60"}"#, type: Self.json)
      #expect(answer.status == 201)
      #expect(answer.body == "{}")
      #expect(answer.header("content-type") == Self.json)
      #expect(answer.header("location") == "/v3/session-blacklist/a%20%2F%C3%A9")
      #expect(answer.header("access-control-allow-origin") == "*")
      let found = try client.get("/\(version)/session-blacklist/a%20%2F%C3%A9")
      #expect(found.status == 200 && found.body == "{}")
      #expect(try client.get("/v3/session-blacklist/a").status == 404)
      #expect(try client.get("/v3/session-blacklist/%zz").status == 400)
      #expect(try client.get("/v3/session-blacklist/%ff").status == 400)
    }
  }

  @Test("14.E29 An entry ends by the boot clock, whatever the wall clock says")
  func clock() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    let before = BootClock.second()
    try await gateway.served { client in
      _ = try client.post(Self.path, #"{"sessionId":"s","validityInSeconds":60}"#, type: Self.json)
    }
    let reader = try RingReader(attaching: gateway.state.fd, slot: 0)
    var ends: [UInt32] = []
    while let record = try reader.next() {
      if case .blacklisted(_, let until)? = try? StateRecord(type: record.type, record.bytes) {
        ends.append(until)
      }
    }
    #expect(ends.count == 1 && (before + 60...BootClock.second() + 60).contains(ends.first ?? 0), "\(ends)")
  }

  @Test(
    "What is wrong with an order is named",
    arguments: [
      (#"{"validityInSeconds":60}"#, "sessionId"), (#"{"sessionId":"","validityInSeconds":60}"#, "sessionId"),
      (#"{"sessionId":7,"validityInSeconds":60}"#, "sessionId"),
      (#"{"sessionId":"s"}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":0}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":-1}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":1.5}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":1e99}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":315360001}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":"soon"}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":"-5"}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":"1.5"}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":""}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":null}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":[60]}"#, "validityInSeconds"),
      (#"{"sessionId":"s","validityInSeconds":99999999999999999999}"#, "validityInSeconds"),
      ("[]", "body"), ("{", "body"), ("", "body"),
    ])
  func refused(_ body: String, _ field: String) async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.post(Self.path, body, type: Self.json)
      #expect(answer.status == 400)
      #expect(answer.header("content-type") == "application/problem+json")
      #expect(answer.body.contains(field))
    }
    let ring = try RingWriter(attaching: gateway.state.fd, wake: [-1, -1])
    var entries = 0
    try ring.forEachRetained { record in
      if case .blacklisted? = try? StateRecord(type: record.type, record.bytes) { entries += 1 }
    }
    #expect(entries == 0)
  }

  @Test("Names that are too long, other content types and other methods are refused")
  func others() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let long = String(repeating: "s", count: 1025)
      let body = #"{"sessionId":"\#(long)","validityInSeconds":60}"#
      #expect(try client.post(Self.path, body, type: Self.json).status == 400)
      #expect(try client.post(Self.path, "{}", type: "text/plain").status == 415)
      #expect(try client.ask("POST", Self.path).status == 415)
      for (method, path) in [
        ("GET", Self.path), ("DELETE", Self.path + "/s"), ("POST", "/v3/sessions"),
        ("PUT", "/v3/sessions/alice"),
        ("GET", "/v3/connections/0-1"), ("POST", "/rg/sessions"), ("GET", "/rg/connections/x"),
      ] {
        let answer = try client.ask(method, path)
        #expect(answer.status == 405 && answer.header("allow") != nil, "\(method) \(path)")
      }
      #expect(try client.get("/v3/sessions/").status == 404)
      #expect(try client.get("/v3/session-blacklist/a/b").status == 404)
    }
  }

  @Test("The answer comes when every connection worker has carried the order out, and not before")
  func confirmed() async throws {
    let gateway = try TestGateway()
    let readers = try (0..<2).map { try RingReader(attaching: gateway.state.fd, slot: $0) }
    try await gateway.served { client in
      let status = Answered()
      let thread = Thread {
        let answer = try? client.post(
          Self.path, #"{"sessionId":"s","validityInSeconds":60}"#, type: Self.json)
        status.set(answer?.status ?? -1)
      }
      thread.start()
      for reader in readers {
        try until("the record is there") {
          while let record = try reader.next() {
            if case .blacklisted? = try? StateRecord(type: record.type, record.bytes) { return true }
          }
          return false
        }
        // It hasn't committed yet: while others are answered and the confirmations are looked at, there is no answer.
        let twoLooks = MonotonicTime.now() + 2 * Confirmations.slowestLookNs
        repeat {
          #expect(try client.get(Self.path + "/s").status == 200)
        } while MonotonicTime.now() < twoLooks
        #expect(status.value == nil)
        reader.commit()
      }
      try until("it is answered") { status.value != nil }
      #expect(status.value == 201)
    }
  }

  @Test("No place on the blacklist is 503 with a time to try again")
  func full() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    var settings = Settings()
    settings.maxBlacklistEntries = 1
    try await gateway.served(settings) { client in
      func add(_ name: String, _ seconds: Int) throws -> ManagementClient.Answer {
        try client.post(
          Self.path, #"{"sessionId":"\#(name)","validityInSeconds":\#(seconds)}"#, type: Self.json)
      }
      #expect(try add("a", 60).status == 201)
      let refused = try add("b", 60)
      #expect(refused.status == 503)
      #expect(refused.header("retry-after") == "1")
      #expect(try add("a", 90).status == 201)
      #expect(try add("a", 1).status == 201)
    }
  }

  @Test("Presence is unknown until every connection worker has reported")
  func incomplete() async throws {
    let gateway = try TestGateway()
    try gateway.reporter(0).report([.begin(generation: 1), .opened(.of(1, ["alice"])), .end])
    try await gateway.served { client in
      for path in ["/v3/sessions", "/v3/sessions/alice"] {
        let answer = try client.get(path)
        #expect(answer.status == 503)
        #expect(answer.header("retry-after") == "1")
      }
    }
  }

  @Test("Users and their connections are listed, and closed")
  func presence() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    let events = try RingReader(attaching: try gateway.ring("events.control"), slot: 0)
    try gateway.reporter(0).report([
      .begin(generation: 1), .opened(.of(26, ["alice"], sessions: ["s\"1"], transport: "ws")),
      .opened(.of(27, ["bob"])), .end,
    ])
    try gateway.reporter(1).report([.begin(generation: 1), .opened(.of(26, ["alice"])), .end])
    try await gateway.served { client in
      let users = try client.get("/v3/sessions")
      #expect(users.status == 200)
      #expect(users.body == #"[{"user":"alice","connections":2},{"user":"bob","connections":1}]"#)
      let alice = try client.get("/v3/sessions/%61lice").body
      let first =
        #"[{"connection":"0-1a","transport":"ws","session":"s\"1","since":"1970-01-01T00:00:26.000Z","#
        + #""remote":"192.0.2.1","userAgent":"curl/8.5.0","device":{"type":"unknown","os":"unknown","#
        + #""browser":"curl","browserVersion":"8.5.0"},"subscriptions":[],"node":"node"},{"connection":"1-1a""#
      #expect(alice.hasPrefix(first), "\(alice)")
      #expect(try client.get("/v3/sessions/carol").status == 404)
      #expect(try client.ask("DELETE", "/v3/sessions/carol").status == 404)
      #expect(try client.ask("DELETE", "/v3/sessions/alice").status == 204)
      for id in ["1-1b", "7-1a", "0-01a", "x", "0-1A", "70000-1"] {
        #expect(try client.ask("DELETE", "/v3/connections/\(id)").status == 404, "\(id)")
      }
      #expect(try client.ask("DELETE", "/v3/connections/0-1b").status == 204)
      #expect(try client.get("/metrics").value("rig_users_online") == "2")
    }
    var said: [StateRecord] = []
    try RingWriter(attaching: gateway.state.fd, wake: []).forEachRetained { record in
      (try? StateRecord(type: record.type, record.bytes)).map { said.append($0) }
    }
    #expect(said.suffix(2) == [.closeUser("alice"), .closeConnection(ConnectionID(slot: 0, serial: 27))])
    #expect(
      Set(said.prefix(2).map { "\($0)" })
        == Set(["alice", "bob"].map { "\(StateRecord.online(user: $0, roles: []))" }))
    for user in ["alice", "bob"] {
      let record = try #require(try events.next())
      let event = try #require(EventRecord(ring: record))
      #expect(!event.isAddressed)
      #expect(String(decoding: event.typeBytes, as: UTF8.self) == "rig.presence.join")
      #expect(
        String(decoding: event.jsonBytes, as: UTF8.self).hasSuffix(
          #""data":{"user":"\#(user)","node":"node"}}"#))
    }
  }

  @Test("With SESSION_ROLE only users of that role are listed")
  func role() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    try gateway.reporter(0).report([
      .begin(generation: 1), .opened(.of(1, ["alice"], roles: ["customer"])), .opened(.of(2, ["bob"])), .end,
    ])
    try gateway.reporter(1).report([.begin(generation: 1), .end])
    var settings = Settings()
    settings.sessionRole = "customer"
    try await gateway.served(settings) { client in
      let users = try client.get("/v3/sessions")
      #expect(users.body == #"[{"user":"alice","connections":1}]"#)
    }
  }

  private static func token(_ claims: String) -> String {
    let text = Base64URL.encode(Array(#"{"alg":"HS256"}"#.utf8)) + "." + Base64URL.encode(Array(claims.utf8))
    let key = Array("secret".utf8)
    var code = [UInt8](repeating: 0, count: 32)
    HMAC(EVP_sha256(), key, CInt(key.count), Array(text.utf8), text.utf8.count, &code, nil)
    return text + "." + Base64URL.encode(code)
  }

  private static func legacyFields(_ actions: String, jti: String = "operator", scheme: String = "Bearer ")
    -> String
  {
    let claims = #"{"exp":4102444800,"jti":"\#(jti)","scopes":{"rg":{"actions":\#(actions)}}}"#
    return "authorization: \(scheme)\(token(claims))\r\n"
  }

  @Test("14.D20 RIG 1: sessions and devices have its shapes, and nobody's are empty lists")
  func legacyShapes() async throws {
    var phone = PresentConnection.of(26, ["alice"], sessions: ["j1"], roles: ["user"])
    phone.claims = [Array(#"{"username":"alice","role":["customer"],"jti":"j1","time":1,"level":1.5}"#.utf8)]
    let agent = PresentConnection.of(27, ["\"bob"], roles: ["agent"])
    let all = Self.legacyFields(#"["getSessions","getSessionConnections"]"#)
    let table: [(role: String?, users: String)] = [
      (nil, #"["alice"]"#), ("", #"["\"bob","alice"]"#), ("agent", #"["\"bob"]"#), ("nobody", "[]"),
    ]
    for (role, users) in table {
      let gateway = try TestGateway()
      try gateway.withoutStateReaders()
      try gateway.reporter(0).report([.begin(generation: 1), .opened(phone), .opened(agent), .end])
      try gateway.reporter(1).report([.begin(generation: 1), .end])
      var settings = Settings()
      settings.jwtSecretKey = Secret("secret")
      settings.sessionRole = role
      try await gateway.served(settings) { client in
        let listed = try client.get("/rg/sessions", all)
        #expect(listed.status == 200 && listed.body == users, "\(listed.body)")
        #expect(listed.header("cache-control") == "no-store")
        let devices = try client.get("/rg/sessions/alice", all)
        #expect(
          devices.body
            == #"[{"username":"alice","role":["customer"],"jti":"j1","level":1.5,"time":26000,"#
            + #""address":"192.0.2.1","device":"unknown","browser":"curl"}]"#, "\(devices.body)")
        // Its claims aren't known.
        let other = try client.get("/rg/sessions/%22bob", all)
        #expect(other.body == #"[{"time":27000,"address":"192.0.2.1","device":"unknown","browser":"curl"}]"#)
        let nobody = try client.get("/rg/sessions/carol", all)
        #expect(nobody.status == 200 && nobody.body == "[]")
        #expect(try client.get("/rg/sessions/%zz", all).status == 400)
      }
    }
  }

  @Test("14.D20 RIG 1: while not every worker has reported, a session ends for the usual time at least")
  func legacyEndOfPartlyKnown() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    let now = UInt32(Date().timeIntervalSince1970)
    var connection = PresentConnection.of(1, ["alice"], sessions: ["s"])
    connection.validUntil = now + 600
    try gateway.reporter(0).report([.begin(generation: 1), .opened(connection), .end])
    var settings = Settings()
    settings.jwtSecretKey = Secret("secret")
    settings.jwtBlacklistDefaultExpiryHours = 2
    let boot = BootClock.second()
    let token = Self.token(#"{"exp":\#(now + 600),"scopes":{"rg":{"actions":["deleteConnection"]}}}"#)
    try await gateway.served(settings) { client in
      #expect(try client.get("/v3/sessions").status == 503)
      let answer = try client.ask("DELETE", "/rg/connections/s", "authorization: Bearer \(token)\r\n")
      #expect(answer.status == 204, "\(answer.body)")
    }
    var ends: [UInt32] = []
    try RingWriter(attaching: gateway.state.fd, wake: []).forEachRetained { record in
      if case .blacklisted(_, let until)? = try? StateRecord(type: record.type, record.bytes) {
        ends.append(until)
      }
    }
    #expect(ends.count == 1 && ends.allSatisfy { $0 >= boot + 7_200 }, "\(ends)")
  }

  @Test("14.D20 RIG 1: a session is ended until its tokens have, also one of which nothing is known")
  func legacyEnd() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    let now = UInt32(Date().timeIntervalSince1970)
    func connection(_ serial: UInt64, _ session: String, until: UInt32) -> PresenceRecord {
      var connection = PresentConnection.of(serial, ["alice"], sessions: [session])
      connection.validUntil = until
      return .opened(connection)
    }
    try gateway.reporter(0).report([
      .begin(generation: 1), connection(1, "known", until: now + 600),
      connection(2, "known", until: now + 900),
      connection(3, "endless", until: 0), .end,
    ])
    try gateway.reporter(1).report([.begin(generation: 1), .end])
    var settings = Settings()
    settings.jwtSecretKey = Secret("secret")
    settings.jwtBlacklistDefaultExpiryHours = 2
    let boot = BootClock.second()
    func fields(_ end: UInt32) -> String {
      let claims = #"{"exp":\#(end),"scopes":{"rg":{"actions":["deleteConnection"]}}}"#
      return "authorization: Bearer \(Self.token(claims))\r\n"
    }
    // What ends, who orders it until when, and for how long it ends.
    let table: [(session: String, orderer: UInt32, seconds: UInt32)] = [
      ("known", now + 86_400, 900), ("endless", now + 600, 7_200), ("unknown", now + 600, 7_200),
      ("other", now + 86_400, 86_400),
    ]
    try await gateway.served(settings) { client in
      for (session, orderer, _) in table {
        let answer = try client.ask("DELETE", "/rg/connections/\(session)", fields(orderer))
        #expect(answer.status == 204 && answer.body.isEmpty, "\(session): \(answer.body)")
        #expect(try client.get("/v3/session-blacklist/\(session)").status == 200)
        #expect(try client.ask("DELETE", "/rg/connections/\(session)", fields(orderer)).status == 204)
      }
      let long = String(repeating: "s", count: 1_025)
      #expect(try client.ask("DELETE", "/rg/connections/\(long)", fields(now + 600)).status == 400)
    }
    let hasher = try #require(SessionHasher())
    var ends: [SessionDigest: UInt32] = [:]
    try RingWriter(attaching: gateway.state.fd, wake: []).forEachRetained { record in
      if case .blacklisted(let session, let until)? = try? StateRecord(type: record.type, record.bytes) {
        ends[session] = max(until, ends[session] ?? 0)
      }
    }
    for (session, _, seconds) in table {
      let digest = try #require(hasher.digest(session))
      let until = try #require(ends[digest], "\(session)")
      // The clocks are read one after the other, and the whole last second counts.
      #expect((boot + seconds - 5...boot + seconds + 15).contains(until), "\(session): \(until - boot)")
    }
  }

  @Test("RIG 1's paths are open to the scopes that a token has, and to nobody else")
  func legacy() async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    try gateway.reporter(0).report([
      .begin(generation: 1), .opened(.of(1, ["alice"], sessions: ["j1"])), .end,
    ])
    try gateway.reporter(1).report([.begin(generation: 1), .end])
    var settings = Settings()
    settings.jwtSecretKey = Secret("secret")
    settings.sessionRole = ""
    func bearer(_ actions: String) throws -> String { Self.legacyFields(actions) }
    try await gateway.served(settings) { client in
      #expect(try client.get("/rg/sessions").status == 401)
      #expect(try client.get("/rg/sessions", "authorization: Bearer nonsense\r\n").status == 401)
      #expect(try client.get("/rg/sessions", try bearer("[]")).status == 403)
      #expect(try client.get("/rg/sessions", try bearer(#"["getSessionConnections"]"#)).status == 403)
      let users = try client.get("/rg/sessions", try bearer(#"["getSessions"]"#))
      #expect(users.status == 200 && users.body.contains("alice"))
      let all = try bearer(#"["getSessionConnections","deleteConnection"]"#)
      #expect(try client.get("/rg/sessions/alice", all).status == 200)
      // RIG 1's clients sent it bare; other schemes are no token.
      #expect(
        try client.get("/rg/sessions", Self.legacyFields(#"["getSessions"]"#, scheme: "")).status == 200)
      #expect(try client.get("/rg/sessions", Self.legacyFields("[]", scheme: "")).status == 403)
      #expect(
        try client.get("/rg/sessions", Self.legacyFields(#"["getSessions"]"#, scheme: "Basic ")).status == 401
      )
      #expect(try client.get("/rg/sessions/bob", all).body == "[]")
      #expect(try client.ask("DELETE", "/rg/connections/j2", try bearer(#"["getSessions"]"#)).status == 403)
      #expect(try client.get("/v3/session-blacklist/j2").status == 404)
      #expect(try client.ask("DELETE", "/rg/connections/j1", all).status == 204)
      #expect(try client.get("/v3/session-blacklist/j1").status == 200)
      let order = #"{"sessionId":"operator","validityInSeconds":60}"#
      #expect(try client.post(Self.path, order, type: Self.json).status == 201)
      #expect(try client.get("/rg/sessions/alice", all).status == 401)
    }
  }
}

/// The status of an answer that another thread waits for.
private final class Answered: @unchecked Sendable {
  private let lock = NSLock()
  private var status: Int?

  var value: Int? { lock.withLock { status } }

  func set(_ status: Int) { lock.withLock { self.status = status } }
}
