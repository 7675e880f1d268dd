// How many calls of a service are made at once, and when it is left alone.

import Testing

@testable import Proxies

@Suite("Gate of a service")
struct ServiceGateTests {
  private static let limits = ServiceGate<Int>.Limits(concurrent: 2, waiting: 2, failures: 3, openNs: 100)

  private var gate = ServiceGate<Int>(Self.limits)

  @Test("Calls begin up to the bound, wait up to theirs, and are refused beyond")
  mutating func bounds() {
    #expect((0..<5).map { gate.admit($0, nowNs: 0) } == [.begin, .begin, .waits, .waits, .full])
    #expect(gate.inProgress == 2 && gate.waiting == 2)
    #expect(gate.next() == nil)
    gate.ended(isFailure: false, nowNs: 0)
    #expect(gate.next() == 2)
    #expect(gate.next() == nil)
    gate.abandoned(nowNs: 0)
    #expect(gate.next() == 3)
    #expect(gate.inProgress == 2 && gate.waiting == 0)
  }

  @Test("Calls that wait can be taken out")
  mutating func removal() {
    for call in 0..<4 { _ = gate.admit(call, nowNs: 0) }
    #expect(gate.remove { $0 == 2 } == [2])
    #expect(gate.waiting == 1)
    #expect(gate.remove { $0 == 2 } == [])
  }

  private mutating func fail(_ times: Int, nowNs: UInt64) {
    for _ in 0..<times {
      #expect(gate.admit(0, nowNs: nowNs) == .begin)
      gate.ended(isFailure: true, nowNs: nowNs)
    }
  }

  @Test("Only failures in a row open the circuit")
  mutating func inARow() {
    fail(2, nowNs: 0)
    #expect(gate.admit(0, nowNs: 0) == .begin)
    gate.ended(isFailure: false, nowNs: 0)
    fail(2, nowNs: 0)
    #expect(!gate.isOpen)
    fail(1, nowNs: 0)
    #expect(gate.isOpen)
    #expect(gate.admit(0, nowNs: 40) == .open(forNs: 60))
  }

  @Test("After its time one call is the probe: it closes the circuit, or opens it again")
  mutating func probe() {
    fail(3, nowNs: 0)
    #expect(gate.admit(1, nowNs: 100) == .begin)
    #expect(gate.admit(2, nowNs: 100) == .open(forNs: 0))
    gate.ended(isFailure: true, nowNs: 110)
    #expect(gate.admit(3, nowNs: 209) == .open(forNs: 1))
    #expect(gate.admit(4, nowNs: 210) == .begin)
    gate.ended(isFailure: false, nowNs: 211)
    #expect(!gate.isOpen)
    #expect(gate.admit(5, nowNs: 211) == .begin)
  }

  @Test("A probe that its caller gives up says nothing: the next call is the probe")
  mutating func abandonedProbe() {
    fail(3, nowNs: 0)
    #expect(gate.admit(1, nowNs: 100) == .begin)
    gate.abandoned(nowNs: 105)
    #expect(gate.isOpen)
    #expect(gate.admit(2, nowNs: 105) == .begin)
    gate.ended(isFailure: false, nowNs: 106)
    #expect(!gate.isOpen)
  }

  @Test("A call that began before the circuit opened and is answered later closes it")
  mutating func late() {
    #expect(gate.admit(0, nowNs: 0) == .begin)
    fail(3, nowNs: 0)
    gate.ended(isFailure: false, nowNs: 1)
    #expect(!gate.isOpen)
  }
}

@Suite("Addresses of services")
struct ServiceAddressTests {
  @Test(
    "A URL is taken apart",
    arguments: [
      ("http://a", "http://a:80", "/", "a"),
      ("HTTPS://a.example/x?y=1", "https://a.example:443", "/x?y=1", "a.example"),
      ("http://a:8080?b", "http://a:8080", "/?b", "a:8080"),
      ("http://[::1]/c", "http://[::1]:80", "/c", "[::1]"),
      ("http://[::1]:81/c:d", "http://[::1]:81", "/c:d", "[::1]:81"),
    ])
  func parts(url: String, origin: String, target: String, host: String) throws {
    let address = try #require(ServiceAddress(url))
    #expect(address.origin.description == origin)
    #expect(address.target == target && address.authority == host)
  }

  @Test("What is none is none", arguments: ["", "a", "ftp://a", "http://", "http://:80", "http://a:b"])
  func none(url: String) {
    #expect(ServiceAddress(url) == nil)
  }
}
