// Connections by user or address, oldest first.

import TestSupport
import Testing

@testable import Connections

@Suite("13.B12: connections by what they are counted for")
struct ConnectionTallyTests {
  @Test("The oldest of each is known as connections come and go in any order")
  func oldest() {
    var tally = ConnectionTally()
    func add(_ connection: ConnectionIndex, _ key: UInt64, _ since: UInt64) -> Bool {
      tally.add(connection, for: key, since: since)
    }
    func remove(_ connection: ConnectionIndex) -> [UInt64] { tally.remove(connection) }
    for connection: ConnectionIndex in 0..<4 {
      #expect(add(connection, 1, UInt64(connection)))
      #expect(!add(connection, 1, 9), "it is counted once")
    }
    #expect(add(2, 5, 7))
    #expect(tally.count(of: 1) == 4 && tally.count(of: 5) == 1 && tally.count(of: 6) == 0)
    #expect(remove(1) == [1])
    #expect(tally.oldest(of: 1)?.connection == 0)
    #expect(remove(0) == [1])
    #expect(tally.oldest(of: 1)?.connection == 2)
    #expect(tally.keys(of: 2) == [1, 5])
    #expect(remove(2) == [1, 5])
    #expect(remove(2) == [])
    #expect(tally.oldest(of: 5) == nil && tally.oldest(of: 1)?.since == 3)
    #expect(remove(3) == [1])
    #expect(tally.oldest(of: 1) == nil && tally.count(of: 1) == 0)
  }

  @Test("It agrees with a list of everything, over ten thousand changes at random")
  func model() {
    var random = SeededRandom(seed: 12)
    var tally = ConnectionTally()
    var model: [(connection: ConnectionIndex, key: UInt64, since: UInt64)] = []
    for step in 0..<10_000 {
      let connection = ConnectionIndex.random(in: 0..<40, using: &random)
      if Int.random(in: 0..<3, using: &random) == 0 {
        let keys = tally.remove(connection)
        #expect(keys == model.filter { $0.connection == connection }.map(\.key))
        model.removeAll { $0.connection == connection }
      } else {
        let key = UInt64.random(in: 0..<6, using: &random)
        let isNew = !model.contains { $0.connection == connection && $0.key == key }
        let isAdded = tally.add(connection, for: key, since: UInt64(step))
        #expect(isAdded == isNew)
        if isNew { model.append((connection, key, UInt64(step))) }
      }
      let key = UInt64.random(in: 0..<6, using: &random)
      let line = model.filter { $0.key == key }
      #expect(tally.count(of: key) == line.count)
      #expect(tally.oldest(of: key)?.connection == line.first?.connection)
      #expect(tally.oldest(of: key)?.since == line.first?.since)
    }
  }

  @Test("16.5 Those that are entered later than they were opened have their place by their age")
  func lateEntries() {
    var random = SeededRandom(seed: 16)
    var tally = ConnectionTally()
    var ages = (0..<50).map { UInt64($0 / 2) }
    ages.shuffle(using: &random)
    for (connection, since) in ages.enumerated() {
      let isAdded = tally.add(ConnectionIndex(connection), for: 1, since: since)
      #expect(isAdded)
    }
    let order = tally.oldest(50, of: 1)
    #expect(order.map(\.since) == ages.sorted() && Set(order.map(\.connection)).count == 50)
    for connection in order.dropLast() { _ = tally.remove(connection.connection) }
    #expect(tally.oldest(of: 1)?.connection == order.last?.connection && tally.count(of: 1) == 1)
  }
}
