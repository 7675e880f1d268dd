// In which order the processes at a place's seats are asked for a connection that moves between them.

import TestSupport
import Testing

@testable import Connections
@testable import IPC
@testable import Kit

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

  @Test(
    "16.6 one alone is asked once, one that retires before its heir, and if nobody is seen to retire the first one twice"
  )
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

@Suite("16.6 Questions for a place with two processes")
struct SeatPeersTests {
  private static let question = WorkerRequest.setSubscriptions(serial: 5, change: Array("[]".utf8))

  /// Place 0 with both seats taken, and a worker of place 1 that asks.
  private struct Node {
    let gateway: TestGateway
    let seats: [PeerRequests]
    let asking: PeerRequests

    init() throws {
      let gateway = try TestGateway(workers: 2, seats: 2)
      self.gateway = gateway
      try gateway.setSeated(true, 0, seat: 1)
      seats = try [0, 1].map { try gateway.exchange(0, seat: $0) }
      asking = try gateway.exchange(1)
    }

    /// Whoever is asked answers with this status; who was asked, in order.
    func answer(_ statuses: [UInt16]) -> [Int] {
      var asked: [Int] = []
      for _ in 0..<4 {
        for (seat, requests) in seats.enumerated() {
          requests.serve { from, correlation, _ in
            asked.append(seat)
            requests.answer(from, correlation: correlation, WorkerAnswer(status: statuses[seat], text: ""))
          }
        }
        asking.serve { _, _, _ in }
      }
      return asked
    }
  }

  @Test(
    "16.6 go to the one that retires, then to its heir, and are answered 410 if neither has the connection")
  func order() throws {
    let node = try Node()
    try node.gateway.page(0, seat: 1).state = .draining
    let cases: [([UInt16], [Int], UInt16)] = [
      ([204, 204], [1], 204), ([204, 410], [1, 0], 204), ([410, 410], [1, 0], 410),
    ]
    for (statuses, order, answer) in cases {
      var answers: [UInt16?] = []
      let asked = node.asking.ask(0, Self.question, deadlineNs: .max) { answers.append($0?.status) }
      guard case .waiting = asked else { throw TestFailure("\(asked)") }
      #expect(node.answer(statuses) == order && answers == [answer])
      #expect(node.asking.waitingCount == 0)
    }
  }

  @Test("16.6 go on to the heir when the one that was asked has ended without a word")
  func ended() throws {
    let node = try Node()
    try node.gateway.page(0, seat: 0).state = .draining
    var answers: [UInt16?] = []
    _ = node.asking.ask(0, Self.question, deadlineNs: .max) { answers.append($0?.status) }
    try node.gateway.setSeated(false, 0, seat: 0)
    node.asking.tick(nowNs: 1)
    var asked = 0
    node.seats[1].serve { from, correlation, _ in
      asked += 1
      node.seats[1].answer(from, correlation: correlation, WorkerAnswer(status: 204, text: ""))
    }
    node.asking.serve { _, _, _ in }
    #expect(asked == 1 && answers == [204])
  }

  @Test("16.6 of the own place go to the process at the other seat, if there is one")
  func beside() throws {
    let node = try Node()
    var answers: [UInt16?] = []
    #expect(node.seats[0].isSiblingThere && node.seats[1].isSiblingThere && !node.asking.isSiblingThere)
    _ = node.seats[1].ask(0, Self.question, deadlineNs: .max) { answers.append($0?.status) }
    node.seats[0].serve { from, correlation, _ in
      #expect(from == 1)
      node.seats[0].answer(from, correlation: correlation, WorkerAnswer(status: 204, text: ""))
    }
    node.seats[1].serve { _, _, _ in }
    #expect(answers == [204])
    try node.gateway.setSeated(false, 0, seat: 1)
    #expect(!node.seats[0].isSiblingThere)
    #expect(node.seats[0].ask(0, Self.question, deadlineNs: .max) { _ in } == .noSuchWorker)
  }

  @Test("16.6 have no answer if a poll's client has gone, whoever was asked for it last")
  func cancelled() throws {
    let node = try Node()
    let asked = node.asking.ask(0, .poll(serial: 9, lastEventID: nil), deadlineNs: .max) { _ in
      Issue.record("it was answered")
    }
    guard case .waiting(let correlation) = asked else { throw TestFailure("\(asked)") }
    node.seats[0].serve { from, correlation, _ in
      node.seats[0].answer(from, correlation: correlation, .gone)
    }
    node.asking.serve { _, _, _ in }
    node.asking.cancelPoll(correlation, serial: 9)
    var heard: [WorkerRequest] = []
    node.seats[1].serve { heard.append($2) }
    #expect(heard == [.poll(serial: 9, lastEventID: nil), .cancelPoll(serial: 9)])
  }
}
