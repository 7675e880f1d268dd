// The table of chains: against a dictionary, while it grows and shrinks.

import TestSupport
import Testing

@testable import Connections

@Suite("Bucket table")
struct BucketTableTests {
  @Test("13.B9: agrees with a dictionary at every moment of growing and shrinking", arguments: 1...3)
  func againstDictionary(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var table = BucketTable()
    var expected: [UInt64: [SlabIndex]] = [:]
    var next: SlabIndex = 0
    func check(_ key: UInt64) {
      #expect(table.head(of: key) == expected[key]?.last ?? noElement)
      #expect(table.length(of: key) == expected[key]?.count ?? 0)
      #expect(table.count == expected.count)
    }
    // Grows to some thousands, and comes back to nothing.
    for growing in [true, false] {
      for _ in 0..<6_000 {
        // Keys that are close together, and have the same place in small tables.
        let key = UInt64.random(in: 0..<2_000, using: &random) &* (seed == 1 ? 1 : 1 << 10)
        if growing || Int.random(in: 0..<8, using: &random) == 0 {
          let before = table.push(next, key: key)
          #expect(before == expected[key]?.last ?? noElement)
          expected[key, default: []].append(next)
          next += 1
        } else if let victim = expected.keys.randomElement(using: &random) {
          expected[victim]?.removeLast()
          if expected[victim]?.isEmpty == true { expected[victim] = nil }
          table.pop(key: victim, head: expected[victim]?.last ?? noElement)
          check(victim)
        }
        check(key)
      }
      for key in expected.keys { check(key) }
    }
    for key in expected.keys {
      while let list = expected[key] {
        let rest = list.dropLast()
        expected[key] = rest.isEmpty ? nil : Array(rest)
        table.pop(key: key, head: rest.last ?? noElement)
      }
    }
    #expect(table.count == 0)
  }
}
