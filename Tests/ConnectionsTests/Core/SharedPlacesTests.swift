// Shares of clients and APIs in what many compete for.

import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("Shared places")
struct SharedPlacesTests {
  private static func holder(_ client: String, _ api: String = "books") -> PlaceHolder {
    PlaceHolder(client: AddressPrefix(client), api: api)
  }

  private static func refusal(_ places: inout SharedPlaces, _ holder: PlaceHolder) -> PlaceRefusal? {
    do throws(PlaceRefusal) {
      try places.take(holder)
      return nil
    } catch {
      return error
    }
  }

  @Test("13.B11: Shares are rounded up, and never nothing")
  func limits() {
    let cases = [(1, 1, 1), (2, 1, 2), (5, 3, 4), (10, 5, 8), (1000, 500, 800)]
    for (all, client, api) in cases {
      let limits = PlaceLimits(all: all, clientShare: 50, apiShare: 80)
      #expect(limits.perClient == client && limits.perAPI == api)
    }
    #expect(PlaceLimits(all: 3, clientShare: 1, apiShare: 100).perClient == 1)
  }

  @Test(
    "13.B11: Neither a client nor an API gets more than its share, and all together no more than there is")
  func shares() {
    var places = SharedPlaces(PlaceLimits(all: 10, clientShare: 30, apiShare: 60))
    let greedy = Self.holder("192.0.2.1")
    for _ in 0..<3 { #expect(Self.refusal(&places, greedy) == nil) }
    #expect(Self.refusal(&places, greedy) == .client)
    #expect(Self.refusal(&places, Self.holder("::ffff:192.0.2.1", "films")) == .client)
    for _ in 0..<3 { #expect(Self.refusal(&places, Self.holder("2001:db8::1")) == nil) }
    #expect(Self.refusal(&places, Self.holder("2001:db8::ffff:2")) == .client)
    #expect(Self.refusal(&places, Self.holder("192.0.2.3")) == .api)
    // Without an address only the API counts.
    for _ in 0..<4 { #expect(Self.refusal(&places, Self.holder("", "films")) == nil) }
    #expect(Self.refusal(&places, Self.holder("192.0.2.4", "films")) == .all)
    places.giveBack(greedy)
    #expect(Self.refusal(&places, greedy) == nil)
  }

  @Test("13.B11: What is given back leaves nothing behind")
  func noLeak() {
    let unused = SharedPlaces(PlaceLimits(all: 20, clientShare: 50, apiShare: 80))
    var places = unused
    var random = SeededRandom(seed: 11)
    var held: [PlaceHolder] = []
    for _ in 0..<10_000 {
      if random.next() % 2 == 0 || held.isEmpty {
        let holder = Self.holder("192.0.2.\(random.next() % 9)", "api\(random.next() % 3)")
        if Self.refusal(&places, holder) == nil { held.append(holder) }
      } else {
        places.giveBack(held.remove(at: Int(random.next() % UInt64(held.count))))
      }
      var fresh = unused
      for holder in held { _ = Self.refusal(&fresh, holder) }
      #expect(places.taken == held.count && places == fresh)
    }
    for holder in held { places.giveBack(holder) }
    #expect(places == unused)
  }
}
