// Tables of what is asked, peers, and credit: pure.

import IPC
import Testing

@testable import Links

@Suite("What is asked")
struct AskingTests {
  private func asking(_ questions: [(peer: Int, deadlineNs: UInt64)], most: Int = 100) -> (
    Asking<Int>, [UInt64]
  ) {
    var asking = Asking<Int>(generation: 3, mostWaiting: most)
    var correlations: [UInt64] = []
    for (number, question) in questions.enumerated() {
      correlations.append(asking.nextCorrelation())
      asking.begin(number, of: question.peer, correlations[number], deadlineNs: question.deadlineNs)
    }
    return (asking, correlations)
  }

  @Test("An answer finds its asker once, and only by the peer that was asked")
  func answers() {
    var (asking, correlations) = asking([(0, 9), (1, 9)])
    func take(_ correlation: UInt64, of peer: Int) -> Int? { asking.take(correlation, of: peer) }
    #expect(take(correlations[0], of: 1) == nil)
    #expect(take(correlations[0], of: 0) == 0)
    #expect(take(correlations[0], of: 0) == nil)
    #expect(take(correlations[1] + 1, of: 1) == nil)
    #expect(asking.count == 1)
  }

  @Test("Whoever waits is told in the order of asking: what is late, what a dead peer was asked, everybody")
  func ends() {
    var (asking, _) = asking([(0, 5), (1, 7), (0, 6), (1, 5), (2, 9)])
    func expire(_ nowNs: UInt64) -> [Int] { asking.expire(nowNs: nowNs) }
    func abandon(_ peer: Int) -> [Int] { asking.abandon(peer) }
    func endAll() -> [Int] { asking.endAll() }
    #expect(asking.waiting(for: 0).map(\.asker) == [0, 2] && asking.count == 5)
    #expect(expire(4) == [])
    #expect(expire(5) == [0, 3])
    #expect(abandon(1) == [1])
    #expect(endAll() == [2, 4])
    #expect(asking.count == 0 && endAll() == [])
  }

  @Test("What is cancelled is known by whom it was asked of, and gets no answer")
  func cancelled() throws {
    var (asking, correlations) = asking([(4, 5)])
    let first = asking.cancel(correlations[0])
    let cancelled = try #require(first)
    #expect(cancelled.asker == 0 && cancelled.peer == 4)
    let again = asking.cancel(correlations[0])
    let answered = asking.take(correlations[0], of: 4)
    #expect(again == nil && answered == nil)
  }

  @Test("There is a bound, and a correlation tells the generation of its caller")
  func bounds() {
    let (asking, correlations) = asking([(0, 1), (0, 1)], most: 2)
    #expect(asking.isFull)
    #expect(correlations.allSatisfy { Correlation.isOf(generation: 3, $0) })
    let first = Correlation.first(generation: 7)
    #expect(Correlation.isOf(generation: 7, first + 1_000_000))
    #expect(!Correlation.isOf(generation: 8, first) && !Correlation.isOf(generation: 6, first))
    let huge = UInt64.max - 1
    #expect(Correlation.isOf(generation: huge, Correlation.first(generation: huge)))
  }

  @Test("Peers that serve have their turns, a key has its own, and a restart is noticed once")
  func peers() throws {
    let descriptors = try (0..<3).map { try StatusPage.create(name: "peer\($0)").take() }
    defer { for descriptor in descriptors { _ = Descriptor(owning: descriptor) } }
    let pages = try descriptors.map { try StatusPage(attaching: $0) }
    var peers = Peers(pages)
    let nobody = peers.next()
    #expect(nobody == nil && peers.first(for: "a") == nil)
    for page in pages { page.beginGeneration(pid: 1) }
    let restarted = (0..<3).map { peers.hasRestarted($0) }
    let restartedAgain = (0..<4).map { peers.hasRestarted($0) }
    #expect(restarted == [true, true, true] && restartedAgain == [false, false, false, false])
    for page in pages { page.state = .ready }
    let turns = (0..<6).map { _ in peers.next() }
    #expect(turns == [0, 1, 2, 0, 1, 2])
    let own = try #require(peers.first(for: "a"))
    #expect(peers.first(for: "a") == own)
    pages[own].state = .stopping
    let other = try #require(peers.first(for: "a"))
    #expect(other == (own + 1) % 3)
    let served = Set((0..<6).compactMap { _ in peers.next() })
    #expect(served == Set(0..<3).subtracting([own]))
  }

  @Test("Credit: nothing is sent without, and what was taken is given back in lumps")
  func credit() {
    var toSend = CreditToSend(10)
    toSend.sent(10)
    #expect(!toSend.isOpen)
    toSend.received(1)
    #expect(toSend.isOpen)
    toSend.sent(1_000)
    #expect(!toSend.isOpen)

    var given = CreditGiven()
    func receive(_ count: Int) -> Bool { given.received(count) }
    func give(atLeast least: UInt32 = CreditWindow.lumpBytes) -> UInt32? { given.give(atLeast: least) }
    #expect(given.isNothing)
    let opened = given.open()
    #expect(opened == CreditWindow.bytes && !given.isNothing)
    #expect(receive(Int(CreditWindow.lumpBytes) - 1))
    #expect(give() == nil)
    #expect(receive(1))
    #expect(give() == CreditWindow.lumpBytes)
    #expect(give() == nil && give(atLeast: 1) == nil)
    // Some credit is enough for a whole piece, and no more.
    #expect(receive(Int(CreditWindow.bytes)))
    #expect(receive(CreditWindow.pieceBytes - 1))
    #expect(!receive(1))
    #expect(give(atLeast: 1) == CreditWindow.bytes + UInt32(CreditWindow.pieceBytes))
    // Whoever sends without any credit doesn't crash the one who counts.
    for _ in 0..<3 { #expect(!receive(Int(UInt32.max))) }
    #expect(give() == .max)
  }
}
