// What a spare does before it waits.

import Testing

@testable import Connections

@Suite struct RehearsalTests {
  @Test func `16.8 a worker of nobody's can be put together, takes a turn, and can be taken apart`() throws {
    for _ in 0..<2 { try Rehearsal.perform() }
  }
}
