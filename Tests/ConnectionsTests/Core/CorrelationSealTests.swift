// Correlation ids: nobody but the worker that waits makes one.

import Kit
import Links
import Testing

@testable import Connections

@Suite("Correlation ids")
struct CorrelationSealTests {
  private let key = (0..<32).map { UInt8($0 * 7 + 1) }

  private func seal(slot: UInt16 = 1, epoch: UInt64 = 77, key: [UInt8]? = nil) throws -> CorrelationSeal {
    try CorrelationSeal(tokenKey: key ?? self.key, slot: slot, epoch: epoch)
  }

  @Test("survive the way through text, and are told from all others")
  func roundTrip() throws {
    let seal = try seal()
    var ids = Set<String>()
    for number: UInt64 in [0, 1, 1 << 40 | 1, .max] {
      let id = try seal.seal(number)
      ids.insert(id)
      #expect(id.utf8.count == CorrelationAddress.textLength)
      #expect(seal.open(id) == number)
      #expect(CorrelationAddress.parse(id)?.address == CorrelationAddress(slot: 1, epoch: 77, number: number))
      #expect(try self.seal(slot: 2).open(id) == nil)
      #expect(try self.seal(epoch: 78).open(id) == nil)
      #expect(try self.seal(key: Array(key.reversed())).open(id) == nil)
    }
    #expect(ids.count == 4)
  }

  @Test("No bit of one can be changed")
  func forged() throws {
    let seal = try seal()
    let bytes = try #require(Base64URL.decode(try seal.seal(12345)))
    for position in bytes.indices {
      for bit in 0..<8 {
        var changed = bytes
        changed[position] ^= 1 << UInt8(bit)
        #expect(seal.open(Base64URL.encode(changed)) == nil, "\(position).\(bit)")
      }
    }
    // The number of another request under the authentication of this one.
    let other = try #require(Base64URL.decode(try seal.seal(12346)))
    #expect(seal.open(Base64URL.encode(other[..<16] + bytes[16...])) == nil)
  }

  @Test(
    "The authentication is HMAC-SHA256 under a key derived from that of tokens, as any other implementation computes it"
  )
  func knownAnswer() throws {
    let seal = try CorrelationSeal(tokenKey: Array(0..<32), slot: 1, epoch: 2)
    let bytes = try #require(Base64URL.decode(try seal.seal(3)))
    #expect(bytes[..<16] == [1, 0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0])
    #expect(Array(bytes[16...]) == Self.known)
  }

  // Python: k = hmac(bytes(range(32)), b"rig correlation ids, version 1", sha256); hmac(k, 0100 0200… 0300…, sha256)[:16]
  private static let known: [UInt8] = [
    0x88, 0x43, 0x3A, 0x90, 0x22, 0xDB, 0xC4, 0xC6, 0x6B, 0x6C, 0x4E, 0x57, 0x5C, 0x44, 0x46, 0xA9,
  ]

  @Test("A key of another length is refused")
  func keys() {
    #expect(throws: TokenCipherError.keyLength(found: 31)) { _ = try seal(key: Array(0..<31)) }
  }
}

@Suite("Events that requests become")
struct ProducedEventTests {
  private let origin = ProducedEvent.Origin(
    correlation: "c", remoteIP: "::1", host: "a.example", port: 81, scheme: "http",
    headers: [("x", "\"q\"\n"), ("y", "")], method: "POST", path: "/a\\b", query: "x=1")

  private func produced(_ event: String) throws -> (key: String?, json: JSONValue) {
    let event = try ProducedEvent(Array(event.utf8), origin)
    return (event.key, try event.json.withUnsafeBytes { try JSONValue(parsing: $0) })
  }

  @Test("The gateway's member replaces the client's, but for the partition's key")
  func members() throws {
    let (key, json) = try produced(
      #"{"type":"t","rig":{"target_partition":"käy","correlation":"forged","admin":true},"data":1}"#)
    #expect(key == "käy")
    let rig = try #require(json["rig"])
    #expect(rig["correlation"]?.string == "c" && rig["admin"] == nil && rig["target_partition"] == nil)
    #expect(rig["remoteip"]?.string == "::1" && rig["host"]?.string == "a.example")
    #expect(
      rig["path"]?.string == "/a\\b" && rig["query"]?.string == "x=1" && rig["method"]?.string == "POST")
    #expect(rig["port"] == .scalar(.integer(81)) && rig["scheme"]?.string == "http")
    func text(_ value: String) -> JSONValue { .scalar(.string(value)) }
    #expect(
      rig["headers"]
        == .array([.array([text("x"), text("\"q\"\n")]), .array([text("y"), text("")])]))
    #expect(json["data"] == .scalar(.integer(1)) && json["type"]?.string == "t")
  }

  @Test("Without a wish there is no key; one that is no string is refused")
  func keys() throws {
    for event in [
      #"{"a":1}"#, #"{"rig":null}"#, #"{"rig":"x"}"#, #"{"rig":{}}"#, #"{"rig":{"target_partition":null}}"#,
    ] {
      #expect(try produced(event).key == nil, "\(event)")
    }
    for event in [
      #"{"rig":{"target_partition":1}}"#, #"{"rig":{"target_partition":{}}}"#, #"{"rig":1,"rig":2}"#,
    ] {
      #expect(throws: EventError.self, "\(event)") { _ = try produced(event) }
    }
  }

  @Test("Host and port are told apart")
  func hosts() {
    for (field, host, port) in [
      ("a", "a", 80), ("a:81", "a", 81), ("[::1]", "[::1]", 80), ("[::1]:82", "[::1]", 82), ("a:", "a:", 80),
      ("a:x", "a:x", 80), ("a:99999", "a:99999", 80), ("", "", 80),
    ] {
      let split = ProducedEvent.Origin.split(host: field, defaultPort: 80)
      #expect(split.host == host && split.port == port, "\(field)")
    }
  }
}
