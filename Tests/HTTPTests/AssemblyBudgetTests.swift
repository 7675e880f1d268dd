// The account of what is being assembled: bounds, fairness, and that it ends at nothing.

import IPC
import NIOCore
import NIOEmbedded
import Settings
import TestSupport
import Testing

@testable import HTTP

@Suite("Budget for what is being assembled")
struct AssemblyBudgetTests {
  private static let kilobyte = 1024

  private func budget(connection: Int = 100_000, worker: Int = 400_000, largest: Int = 50_000)
    -> AssemblyBudget
  {
    AssemblyBudget(connectionBytes: connection, workerBytes: worker, largestBytes: largest)
  }

  @Test("13.B11: A connection may hold its share and no byte more, announced or come")
  func connection() {
    let budget = budget()
    let share = AssemblyShare(budget)
    let first = AssemblyHold(share)
    let second = AssemblyHold(share)
    #expect(first.announce(60_000) == nil)
    #expect(second.announce(40_001) == .connection(limitBytes: 100_000))
    #expect(second.resize(to: 40_000) == nil)
    #expect(second.resize(to: 40_001) == .connection(limitBytes: 100_000))
    #expect(budget.usedBytes == 40_000 && share.heldBytes == 40_000, "what is only announced isn't held")
    #expect(first.resize(to: 60_000) == nil, "what was announced has its room")
    #expect(budget.usedBytes == 100_000)
    second.release()
    #expect(budget.usedBytes == 60_000)
    #expect(first.announce(100_000) == nil)
  }

  @Test("13.B11: The last part of a worker's budget is for connections that hold little")
  func fairness() {
    let budget = budget()
    let greedy = (0..<3).map { _ in AssemblyHold(AssemblyShare(budget)) }
    for hold in greedy { #expect(hold.resize(to: 100_000) == nil) }
    let next = AssemblyHold(AssemblyShare(budget))
    #expect(next.resize(to: AssemblyBudget.littleBytes) == nil)
    #expect(next.resize(to: AssemblyBudget.littleBytes + 1) == .worker(limitBytes: 400_000))
    // Small ones until there is really nothing left.
    var small: [AssemblyHold] = []
    while true {
      let hold = AssemblyHold(AssemblyShare(budget))
      if hold.resize(to: Self.kilobyte) != nil { break }
      small.append(hold)
    }
    #expect(small.count == (100_000 - AssemblyBudget.littleBytes) / Self.kilobyte)
    #expect(budget.usedBytes <= 400_000)
  }

  @Test("13.B11: Whatever the settings say, the largest body that is taken fits")
  func largest() {
    let budget = AssemblyBudget(connectionBytes: 10, workerBytes: 10, largestBytes: 1_000_000)
    let hold = AssemblyHold(AssemblyShare(budget))
    #expect(hold.announce(1_000_000) == nil && hold.resize(to: 1_000_000) == nil)
  }

  @Test(
    "13.B11: After any course of events the account is what is held, and nothing in the end",
    arguments: 0..<20 as Range<UInt64>)
  func noLeak(seed: UInt64) {
    var generator = SeededRandom(seed: seed)
    func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }
    let budget = budget()
    var shares = (0..<8).map { _ in AssemblyShare(budget) }
    var holds: [(share: Int, hold: AssemblyHold, bytes: Int)] = []
    for _ in 0..<2000 {
      switch random(5) {
      case 0:
        let share = random(shares.count)
        holds.append((share, AssemblyHold(shares[share]), 0))
      case 1 where !holds.isEmpty: holds.remove(at: random(holds.count))
      case 2 where !holds.isEmpty:
        let index = random(holds.count)
        holds[index].hold.release()
        holds[index].bytes = 0
      case 3 where !holds.isEmpty: _ = holds[random(holds.count)].hold.announce(random(50_000))
      case 4 where !holds.isEmpty:
        let index = random(holds.count)
        let bytes = random(50_000)
        if holds[index].hold.resize(to: bytes) == nil { holds[index].bytes = bytes }
      default: break
      }
      #expect(budget.usedBytes == holds.reduce(0) { $0 + $1.bytes })
      for share in shares.indices {
        #expect(shares[share].heldBytes == holds.reduce(0) { $0 + ($1.share == share ? $1.bytes : 0) })
        #expect(shares[share].heldBytes <= budget.connectionBytes)
      }
      #expect(budget.usedBytes <= budget.workerBytes)
    }
    shares = []
    holds = []
    #expect(budget.usedBytes == 0)
  }
}

@Suite("Bodies within a budget")
struct BodyBudgetTests {
  /// Bodies of at most 1000 bytes, 3000 on one connection.
  private static func front(_ responder: ScriptedResponder = ScriptedResponder(), worker: Int = 1 << 20)
    -> EmbeddedFront
  {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 1000
    return EmbeddedFront(
      responder, limits: limits,
      budget: AssemblyBudget(connectionBytes: 3000, workerBytes: worker, largestBytes: 1000))
  }

  private static func begin(_ stream: UInt32, length: Int) -> Frame {
    HTTP2Peer.headers(
      stream, HTTP2Peer.head("POST", "/a", [("content-length", String(length))]), isEnd: false)
  }

  @Test(
    "13.B11: Streams of one connection that were let in are completed; those beyond its share are answered 429"
  )
  func streams() throws {
    let front = Self.front()
    let peer = try HTTP2Peer(front)
    for stream in stride(from: 1, through: 7, by: 2) as StrideThrough<UInt32> {
      try peer.send(
        Self.begin(stream, length: 1000), HTTP2Peer.data(stream, String(repeating: "a", count: 999)))
    }
    #expect(front.server.budget.usedBytes == 2997)
    #expect(peer.answer(7).status == "429" && peer.answer(7).value("retry-after") == "1")
    #expect(peer.answer(7).text.contains("MAX_ASSEMBLY_BYTES_PER_CONNECTION"))
    for stream in [1, 3, 5] as [UInt32] {
      try peer.send(HTTP2Peer.data(stream, "b", isEnd: true))
      #expect(peer.answer(stream).status == "200")
    }
    #expect(front.server.budget.usedBytes == 0)
    try peer.send(
      Self.begin(9, length: 1000), HTTP2Peer.data(9, String(repeating: "a", count: 1000), isEnd: true))
    #expect(peer.answer(9).status == "200" && front.server.budget.usedBytes == 0)
  }

  @Test("13.B11: Bodies without a length count as they come")
  func unannounced() throws {
    let front = Self.front()
    let peer = try HTTP2Peer(front)
    for stream in stride(from: 1, through: 7, by: 2) as StrideThrough<UInt32> {
      try peer.send(HTTP2Peer.headers(stream, HTTP2Peer.head("POST", "/a"), isEnd: false))
      try peer.send(HTTP2Peer.data(stream, String(repeating: "a", count: 900)))
    }
    #expect(peer.answer(7).status == "429" && front.server.budget.usedBytes == 2700)
    try peer.send(Frame(kind: .reset, stream: 1, payload: Frame.bytes(Code.cancel)))
    #expect(front.server.budget.usedBytes == 1800)
    peer.channel.close(promise: nil)
    front.loop.run()
    #expect(front.server.budget.usedBytes == 0)
  }

  @Test("13.B11: A body counts until its request is answered")
  func untilAnswered() throws {
    var promises: [EventLoopPromise<HTTPResponse>] = []
    let loop = EmbeddedEventLoop()
    let front = Self.front(
      ScriptedResponder { _ in
        let promise = loop.makePromise(of: HTTPResponse.self)
        promises.append(promise)
        return .later(promise.futureResult)
      })
    let client = try front.connect()
    _ = try client.send(post("/a", String(repeating: "a", count: 800)))
    #expect(front.server.budget.usedBytes == 800)
    try #require(promises.first).succeed(.text("done"))
    loop.run()
    front.loop.run()
    #expect(try body(client.received()) == "done" && front.server.budget.usedBytes == 0)
    // Its client goes first.
    _ = try client.send(post("/b", String(repeating: "a", count: 700)))
    #expect(front.server.budget.usedBytes == 700)
    client.channel.close(promise: nil)
    front.loop.run()
    #expect(front.server.budget.usedBytes == 0)
    promises.last?.succeed(.text("late"))
    loop.run()
  }

  @Test(
    "13.B11: A worker whose budget is used up refuses with 503, by name, and takes small bodies of others")
  func worker() throws {
    let front = Self.front(worker: 4000)
    let beginning =
      "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n" + String(repeating: "a", count: 999)
    let clients = try (0..<4).map { _ in try front.connect() }
    for client in clients { #expect(try client.send(beginning).isEmpty) }
    #expect(front.server.budget.usedBytes == 3996, "little is let into the last part")
    let next = try front.connect()
    let refusal = try next.send(beginning)
    #expect(statusLines(refusal) == ["HTTP/1.1 503 Service Unavailable"])
    #expect(header("retry-after", in: refusal) == "1" && refusal.contains("MAX_ASSEMBLY_BYTES_PER_WORKER"))
    let small = try front.connect()
    #expect(try body(small.send(post("/b", "abc"))) == "answer to /b")
    for client in clients { client.channel.close(promise: nil) }
    front.loop.run()
    #expect(front.server.budget.usedBytes == 0)
  }
}
