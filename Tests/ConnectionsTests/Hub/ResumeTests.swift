// Clients that come back: no gap, no duplicate, or they are told.

import IPC
import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("Resuming")
struct ResumeTests {
  /// The cursor of a client that has seen `count` events of the streams ring.
  private func cursor(_ count: UInt64, epoch: UInt64 = TestGateway.epoch) -> String {
    Cursor(epoch: epoch, positions: [count]).text
  }

  /// Lets the client read and the worker go on until neither has anything to do.
  private func settle(_ worker: TestWorker, _ client: TestClient) -> String {
    var text = ""
    while true {
      worker.run()
      let more = client.take()
      if more.isEmpty { return text }
      text += more
    }
  }

  @Test("from a cursor brings what was missed, and then what comes")
  func resume() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    for number in 1...6 { try writer.publish(number, type: number == 4 ? "other" : "greeting") }
    worker.run()
    try writer.publish(7)
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("greeting")], lastEventID: cursor(2))
    try writer.publish(8)
    let text = settle(worker, client)
    #expect(numbers(text) == [3, 5, 6, 7, 8])
    #expect(streamed(text).map { $0.id.flatMap { Cursor($0) }?[0] } == [3, 5, 6, 7, 8])
    #expect(connection.replay == nil && worker.replayer.count == 0)
    try writer.publish(9)
    #expect(numbers(settle(worker, client)) == [9])
    client.disconnect()
  }

  @Test("of addressed and expired events brings none")
  func held() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    try writer.publish(1, users: ["Ann"])
    try writer.publish(2, expiresAtUnixMs: 1)
    try writer.publish(3)
    worker.run()
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")], lastEventID: cursor(0))
    #expect(numbers(settle(worker, client)) == [3])
    client.disconnect()
  }

  @Test("over more history than one turn takes and a socket holds brings all of it in order")
  func longHistory() throws {
    let gateway = try TestGateway(eventRingBytes: 8 << 20)
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    for number in 1...9000 { try writer.publish(number, padding: 100) }
    worker.run()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("*")], lastEventID: cursor(0))
    worker.run()
    #expect(connection.replay != nil, "the client hasn't taken all of it")
    #expect(connection.waitingBytes < 1 << 20, "the past waits in the ring, not here")
    try writer.publish(9001)
    #expect(numbers(settle(worker, client)) == Array(1...9001))
    #expect(connection.replay == nil)
    client.disconnect()
  }

  @Test("from where the log no longer reaches says so, and brings what there is")
  func lost() throws {
    let gateway = try TestGateway(eventRingBytes: 1 << 16)
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    for number in 1...2000 {
      try writer.publish(number)
      if number % 100 == 0 { worker.run() }
    }
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")], lastEventID: cursor(1))
    let text = settle(worker, client)
    #expect(streamed(text).first?.name == "rig.events_lost")
    #expect(streamed(text).filter { $0.name == "rig.events_lost" }.count == 1)
    let seen = numbers(text)
    let first = try #require(seen.first)
    #expect(first > 2 && seen == Array(first...2000))
    client.disconnect()
  }

  @Test(
    "from a cursor of another life, or that is none, says that events are lost",
    arguments: [
      "nonsense!", "-", Cursor(epoch: 5, positions: [1]).text,
      Cursor(epoch: TestGateway.epoch, positions: [1, 1, 1]).text,
    ])
  func unknown(lastEventID: String) throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    try writer.publish(1)
    worker.run()
    let client = try TestClient()
    let connection = worker.insertSSE(client)
    try client.channel.pipeline.syncOperations.addHandler(connection)
    connection.outletDidChange()
    worker.connections.begin(
      connection, ConnectRequest([.to("*")]), worker.events.resumption(lastEventID: lastEventID))
    try writer.publish(2)
    let events = streamed(settle(worker, client))
    #expect(events.map(\.name) == ["rig.events_lost", "greeting"])
    client.disconnect()
  }

  @Test("at a worker that hasn't read as far skips what the client has")
  func ahead() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let writer = try gateway.streamsWriter()
    for number in 1...3 { try writer.publish(number) }
    workers[0].run()
    let client = try TestClient()
    try workers[1].openSSE(client, [.to("*")], lastEventID: cursor(2))
    try writer.publish(4)
    #expect(numbers(settle(workers[1], client)) == [3, 4])
    client.disconnect()
  }

  @Test("at a worker that comes past the client's place only after several turns begins exactly there")
  func aheadOverTurns() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let writer = try gateway.streamsWriter()
    let place = LiveDelivery.Limit.records * 3 / 2
    let count = LiveDelivery.Limit.records * 2
    for number in 1...count { try writer.publish(number) }
    let client = try TestClient()
    try workers[1].openSSE(client, [.to("*")], lastEventID: cursor(UInt64(place)))
    #expect(numbers(settle(workers[1], client)) == Array(place + 1...count))
    client.disconnect()
  }

  @Test(
    "from a place that nobody has reached goes on with the next event", arguments: [100, .max] as [UInt64])
  func beyond(position: UInt64) throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    try writer.publish(1)
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")], lastEventID: cursor(position))
    _ = settle(worker, client)
    #expect(worker.replayer.count == 0)
    try writer.publish(2)
    #expect(numbers(settle(worker, client)).contains(2))
    client.disconnect()
  }

  @Test("new subscriptions on the way to the present hold from there on")
  func changed() throws {
    let gateway = try TestGateway(eventRingBytes: 8 << 20)
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    for number in 1...9000 {
      try writer.publish(number, type: number.isMultiple(of: 2) ? "even" : "odd", padding: 100)
    }
    worker.run()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("even")], lastEventID: cursor(0))
    worker.run()
    #expect(connection.replay != nil)
    var answer: WorkerAnswer?
    worker.changes.make(SubscriptionChange([.to("odd")]), serial: connection.serial) { answer = $0 }
    #expect(answer?.status == 204, "a small change is made at once")
    #expect(connection.replay != nil)
    let text = settle(worker, client)
    let blocks = text.split(separator: "event: rig.subscriptions_set", maxSplits: 1)
    try #require(blocks.count == 2)
    let seen = numbers(text)
    #expect(seen == seen.sorted() && seen.first == 2 && seen.last == 8999)
    #expect(connection.replay == nil)
    client.disconnect()
  }

  @Test(
    "14.28 from rings of several writers brings their events in the order in which they were accepted",
    arguments: [0, 1, 5, 333])
  func acceptedOrder(seen first: Int) throws {
    let gateway = try TestGateway(workers: 3, eventRingBytes: 4 << 20)
    let worker = try gateway.worker()
    let writers = try [gateway.streamsWriter(), gateway.ownWriter(1), gateway.ownWriter(2)]
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")])
    var random = SeededRandom(seed: 28)
    let count = 1000
    for number in 0..<count {
      // Runs of one writer as well as changes from one to the next.
      let writer =
        number / 100 % 2 == 0
        ? writers[number / 200 % 3] : writers.randomElement(using: &random) ?? writers[0]
      try writer.publish(number, acceptedAtNs: UInt64(number) + 1)
    }
    worker.run()
    let ids = streamed(client.take()).compactMap(\.id)
    try #require(ids.count == count)
    let back = try TestClient()
    let place = first == 0 ? Cursor(epoch: TestGateway.epoch).text : ids[first - 1]
    try worker.openSSE(back, [.to("*")], lastEventID: place)
    let events = streamed(settle(worker, back))
    #expect(events.map(\.data) == (first..<count).map { #"{"n":\#($0)}"# })
    #expect(events.compactMap(\.id) == Array(ids[first...]), "and with the same ids")
    client.disconnect()
    back.disconnect()
  }

  @Test(
    "15.1 brings every event once with its exact id, wherever client and worker were and however the rings grow"
  )
  func exactlyOnce() throws {
    let gateway = try TestGateway(workers: 3)
    // Little room, so that clients fall behind and catch up as well.
    let worker = try gateway.worker { $0.maxUnsentBytes = 16 << 10 }
    let writers = try [gateway.streamsWriter(), gateway.ownWriter(1), gateway.ownWriter(2)]
    let rings = [0, 2, 3]
    var random = SeededRandom(seed: 3)
    var published = Cursor(epoch: TestGateway.epoch)
    var count: UInt64 = 0
    func publish(atMost most: Int) throws {
      for _ in 0..<Int.random(in: 0...most, using: &random) {
        let writer = Int.random(in: 0..<writers.count, using: &random)
        published[rings[writer]] += 1
        count += 1
        let number = Int(published[rings[writer]]) * 10 + rings[writer]
        try writers[writer].publish(number, acceptedAtNs: count)
      }
    }
    for round in 0..<300 {
      try publish(atMost: 40)
      worker.run()
      var id = published
      // Now and then more than the worker reads in one turn: a client may be ahead of it for several.
      try publish(atMost: round % 10 == 0 ? 3 * LiveDelivery.Limit.records : 40)
      for ring in rings {
        id[ring] = .random(in: id[ring] - min(id[ring], 15)...published[ring], using: &random)
      }
      let client = try TestClient()
      let connection = try worker.openSSE(client, [.to("*")], lastEventID: id.text)
      for _ in 0..<Int.random(in: 0...8, using: &random) {
        switch Int.random(in: 0..<3, using: &random) {
        case 0: try publish(atMost: 20)
        case 1: worker.turn.run()
        default: client.read(atMost: .random(in: 1...20_000, using: &random))
        }
      }
      var wrong: [String] = []
      for event in streamed(settle(worker, client)) {
        let number = Int(event.data.dropFirst(#"{"n":"#.utf8.count).dropLast()) ?? 0
        let (sequence, ring) = (UInt64(number / 10), number % 10)
        if sequence != id[ring] + 1 { wrong.append("\(sequence) of ring \(ring) behind \(id.text)") }
        id[ring] = sequence
        if event.id != id.text { wrong.append("id \(event.id ?? "none"), expected \(id.text)") }
      }
      #expect(
        wrong.isEmpty && id == published && connection.replay == nil, "round \(round): \(wrong.prefix(3))")
      client.disconnect()
    }
  }

  @Test(
    "again and again, at any worker and with sockets that are full, leaves no gap and no duplicate",
    arguments: 1...6 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let gateway = try TestGateway(workers: 2, eventRingBytes: 4 << 20)
    let workers = try [
      gateway.worker(0) { $0.maxUnsentBytes = 64 << 20 }, gateway.worker(1) { $0.maxUnsentBytes = 64 << 20 },
    ]
    let writer = try gateway.streamsWriter()
    var client = try TestClient()
    var worker = 0
    var lastID = cursor(0)
    var seen: [Int] = []
    try workers[0].openSSE(client, [.to("*")], lastEventID: lastID)
    func collect() {
      // A client that is cut off within an event has seen the events before it.
      let text = String(decoding: client.received, as: UTF8.self)
      guard let end = text.ranges(of: "\n\n").last?.upperBound else { return }
      let whole = String(text[..<end]).replacing(/^open\n\n/, with: "")
      seen += numbers(whole)
      lastID = streamed(whole).last { $0.id != nil }?.id ?? lastID
    }
    var number = 0
    for _ in 0..<400 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0...4:
        for _ in 0..<Int.random(in: 1...8, using: &random) {
          try writer.publish(number, padding: .random(in: 0...1500, using: &random))
          number += 1
        }
      case 5, 6: workers[0].run()
      case 7: workers[1].run()
      case 8: client.read(atMost: .random(in: 1...50_000, using: &random))
      default:
        client.read(atMost: .random(in: 1...200_000, using: &random))
        collect()
        client.disconnect()
        client = try TestClient()
        worker = Int.random(in: 0...1, using: &random)
        let chosen = workers[worker]
        let connection = chosen.insertSSE(client)
        try client.channel.pipeline.syncOperations.addHandler(connection)
        connection.outletDidChange()
        chosen.connections.begin(
          connection, ConnectRequest([.to("*")]), chosen.events.resumption(lastEventID: lastID))
      }
    }
    repeat {
      workers[worker].run()
      client.socket.pump()
    } while client.read()
    collect()
    #expect(seen == Array(0..<number))
    client.disconnect()
  }
}
