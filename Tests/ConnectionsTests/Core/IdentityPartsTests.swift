// The pure parts of identity: where a request comes from, whose a connection is, what its tokens make of subscriptions.

import HTTP
import Kit
import NIOHTTP1
import Testing

@testable import Connections

@Suite("Client address")
struct ClientAddressTests {
  private func client(
    _ peer: String, trusted: [String], forwarded: [String] = [], xForwardedFor: [String] = []
  ) -> String {
    var request = HTTPRequest(method: .GET, path: "/", peer: PeerAddress(peer))
    for value in forwarded { request.headers.add(name: "forwarded", value: value) }
    for value in xForwardedFor { request.headers.add(name: "x-forwarded-for", value: value) }
    return TrustedProxies(trusted).client(of: request)
  }

  @Test("is the peer, whatever it claims, unless that is a trusted proxy")
  func untrusted() {
    #expect(client("192.0.2.1", trusted: [], forwarded: ["for=10.0.0.1"]) == "192.0.2.1")
    #expect(client("192.0.2.1", trusted: ["10.0.0.0/8"], xForwardedFor: ["1.1.1.1"]) == "192.0.2.1")
    #expect(client("::ffff:192.0.2.1", trusted: []) == "192.0.2.1")
    #expect(client("", trusted: ["10.0.0.1"], forwarded: ["for=1.1.1.1"]) == "")
  }

  @Test("is the last in the chain that no trusted proxy answers for")
  func chain() {
    let trusted = ["10.0.0.0/8", "2001:db8::1"]
    #expect(client("10.1.2.3", trusted: trusted, forwarded: ["for=192.0.2.7"]) == "192.0.2.7")
    #expect(client("::ffff:10.1.2.3", trusted: trusted, xForwardedFor: ["6.6.6.6, 192.0.2.7"]) == "192.0.2.7")
    #expect(
      client("10.1.2.3", trusted: trusted, xForwardedFor: ["6.6.6.6, 192.0.2.7", "10.9.9.9"]) == "192.0.2.7")
    #expect(
      client(
        "2001:db8::1", trusted: trusted, forwarded: [#"For="[2001:db8::7]:4711";proto=https, for=10.0.0.1"#])
        == "2001:db8::7")
    #expect(client("10.1.2.3", trusted: trusted, xForwardedFor: ["192.0.2.7:8080"]) == "192.0.2.7")
    #expect(client("10.1.2.3", trusted: trusted) == "10.1.2.3")
  }

  @Test("where the trail ends in a name or nonsense, is the last address that is one")
  func nonsense() {
    for field in ["for=unknown", "for=_hidden", "for=", "by=1.1.1.1", ";;;", "for=\"[::1\"", "for=999.1.1.1"]
    {
      #expect(client("10.1.2.3", trusted: ["10.1.2.3"], forwarded: [field]) == "10.1.2.3", "\(field)")
    }
    for network in ["10.0.0.0/33", "10.0.0.0/-1", "x/8", "/8", ""] {
      #expect(client("10.1.2.3", trusted: [network], forwarded: ["for=1.1.1.1"]) == "10.1.2.3", "\(network)")
    }
    #expect(client("10.1.2.3", trusted: ["0.0.0.0/0"], forwarded: ["for=1.1.1.1"]) == "1.1.1.1")
  }
}

@Suite("Connection identity")
struct ConnectionIdentityTests {
  @Test("a fresh token of a user takes the place of the old one; its sessions add up, within bounds")
  func adopting() throws {
    var identity = try #require(
      ConnectionIdentity([Credential(user: "alice", session: "1", validUntil: 100)]))
    let adopted = identity.adopt([Credential(user: "alice", session: "2", roles: ["a"], validUntil: 200)])
    #expect(adopted)
    #expect(identity.users == ["alice"])
    #expect(identity.validUntil == 200)
    #expect(identity.sessions == ["1", "2"])
    _ = identity.adopt([Credential(user: "bob", validUntil: 150.5)])
    #expect(identity.validUntil == 151, "the earliest, and not before it")
    #expect(identity.roles == ["a"])
    for number in 0..<100 { _ = identity.adopt([Credential(user: "alice", session: "s\(number)")]) }
    #expect(identity.sessions.count == ConnectionIdentity.maximumSessions)
    #expect(identity.sessions.last == "s99")
    let before = identity
    let tooMany = identity.adopt((0..<100).map { Credential(user: "user\($0)") })
    #expect(!tooMany)
    #expect(identity == before)
  }

  @Test("users are told apart by their bytes")
  func bytes() throws {
    var identity = try #require(ConnectionIdentity([Credential(user: "\u{e9}", session: "1")]))
    _ = identity.adopt([Credential(user: "e\u{301}", session: "2")])
    #expect(identity.credentials.count == 2)
    #expect(![Credential(roles: ["\u{e9}"])].isPrivileged(by: ["e\u{301}"]))
  }

  @Test("more users than one connection may have are no identity, instead of an empty one")
  func tooMany() {
    let most = ConnectionIdentity.maximumCredentials
    #expect(ConnectionIdentity((0..<most).map { Credential(user: "user\($0)") })?.users.count == most)
    #expect(ConnectionIdentity((0...most).map { Credential(user: "user\($0)") }) == nil)
  }

  @Test(
    "a time out of a mad worker's record that no token can have is nothing",
    arguments: [1e300, .infinity, .nan])
  func madTime(_ time: Double) throws {
    let bytes = SubscriptionChange([], [Credential(user: "alice", validUntil: time)]).encoded
    #expect(SubscriptionChange(bytes, SubscriptionParser(settings: .init())) == nil)
  }

  @Test("a change survives the way to another worker, and nonsense is nothing")
  func change() throws {
    let parser = SubscriptionParser(settings: .init())
    let change = SubscriptionChange(
      (0..<200).map { .to("type\($0)") },
      [Credential(user: "alice", session: nil, roles: ["r"], validUntil: 1.5), Credential()])
    let bytes = change.encoded
    #expect(SubscriptionChange(bytes, parser) == change, "more than a client may have, with those of tokens")
    #expect(SubscriptionChange([], parser) == nil)
    for length in stride(from: 0, to: bytes.count, by: 7) {
      #expect(SubscriptionChange(Array(bytes[..<length]), parser) == nil)
    }
    #expect(SubscriptionChange(bytes + [0], parser) == nil)
  }
}
