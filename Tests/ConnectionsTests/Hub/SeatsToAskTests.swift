// In which order the processes at a place's seats are asked for a connection that moves between them.

import Testing

@testable import Connections

@Suite("16.6 Whom to ask for a connection of a place")
struct SeatsToAskTests {
  private func seat(_ number: UInt16, isRetiring: Bool = false) -> SeatsToAsk.Seat {
    SeatsToAsk.Seat(number: number, isRetiring: isRetiring)
  }

  /// Asks until nobody is left; `moves`: what is true from the n-th time on.
  private func asked(_ moments: [[SeatsToAsk.Seat]]) -> [UInt16] {
    var seats = SeatsToAsk()
    var asked: [UInt16] = []
    var moment = 0
    while let next = seats.next(among: moments[min(moment, moments.count - 1)]) {
      asked.append(next)
      moment += 1
    }
    return asked
  }

  @Test("16.6 one alone is asked once, one that retires before its heir, and if nobody is seen to retire the first one twice")
  func order() {
    #expect(asked([[]]) == [])
    #expect(asked([[seat(4)]]) == [4])
    #expect(asked([[seat(4, isRetiring: true), seat(5)]]) == [4, 5])
    #expect(asked([[seat(4), seat(5, isRetiring: true)]]) == [5, 4])
    #expect(asked([[seat(4), seat(5)]]) == [4, 5, 4])
  }

  @Test("16.6 who has come, begun to retire or gone since somebody was asked is considered")
  func changing() {
    #expect(asked([[seat(4)], [seat(4, isRetiring: true), seat(5)]]) == [4, 5, 4])
    #expect(asked([[seat(4, isRetiring: true), seat(5)], [seat(5)]]) == [4, 5])
    #expect(asked([[seat(4), seat(5)], [seat(5)]]) == [4, 5])
    #expect(asked([[seat(4), seat(5)], [seat(4), seat(5, isRetiring: true)]]) == [4, 5, 4])
  }

  /// A connection is at `from`, and at `to` from the n-th question on: whoever has it when asked says so.
  @Test("16.6 a connection that moves from a retiring process to its heir is found, whenever it moves")
  func found() {
    for (from, to) in [(4, 5), (5, 4)] as [(UInt16, UInt16)] {
      for isSeen in [true, false] {
        for moves in 0...3 {
          var seats = SeatsToAsk()
          var isFound = false
          var questions = 0
          while !isFound,
            let next = seats.next(among: [
              seat(4, isRetiring: from == 4 && isSeen), seat(5, isRetiring: from == 5 && isSeen),
            ])
          {
            isFound = next == (questions >= moves ? to : from)
            questions += 1
          }
          #expect(isFound, "from \(from), seen \(isSeen), moves at question \(moves)")
        }
      }
    }
  }
}
