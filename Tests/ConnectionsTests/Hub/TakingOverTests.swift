// A connection that is taken over in the middle of anything, by its state alone: its client notices nothing.
//
//   client ═══ socket ═══ channel ── connection ──► state ─► bytes ─► state ──► another connection ── another channel ═══ same socket

import NIOCore
import TestSupport
import Testing

@testable import Connections
@testable import Kit

extension TestWorker {
  /// What is known of a connection goes through bytes into another one, which is entered by the same serial.
  ///
  /// - Parameter client: nil: it is polled.
  fileprivate func takeOver(_ former: Connection, _ client: TestClient?) throws -> Connection {
    let bytes = former.state.encoded
    // What was on its way and has reached the socket is what the kernel tells.
    let written = client?.socket.takeBack() ?? 0
    wiring.connections.closed(former)
    try client?.moveToOtherChannel()
    var state = try ConnectionState(
      decoding: bytes,
      ConnectionState.Surroundings(maximumMessageBytes: 1 << 20, inflater: MessageInflater()))
    state.waiting.advance(by: written)
    let resuming = state.resuming
    state.resuming = nil
    let entered = wiring.connections.table.adopt(serial: state.serial, second: wiring.clock.second) { index in
      if let client {
        Connection(
          state, at: index, of: wiring.connections, on: client.channel, descriptor: client.near,
          intake: state.transport.webSocket == nil ? nil : wiring.intake)
      } else {
        Connection(polled: state, at: index, of: wiring.connections, wiring.polls)
      }
    }
    let connection = try #require(entered)
    if let identity = state.identity {
      let isIdentified = wiring.connections.identify(connection, identity, isPrivileged: false)
      #expect(isIdentified)
    }
    let wishes = SubscriptionContent.decode(state.subscriptions)
    let hold = try wiring.subscriptions.hold(wishes)
    if let resuming {
      connection.resume(resuming.plan, by: Replay(wishes, hold))
      wiring.replayer.add(connection)
    } else {
      wiring.connections.join(connection, hold)
    }
    if let client {
      try client.channel.pipeline.syncOperations.addHandler(connection)
      connection.outlet?.resume()
      connection.outletDidChange()
    }
    return connection
  }
}

@Suite("15.6 Taking connections over")
struct TakingOverTests {
  private struct Traffic {
    let writer: EventWriter
    var random: SeededRandom
    var published = 0
    var expected: [Int] = []

    init(_ gateway: TestGateway, seed: UInt64) throws {
      writer = try gateway.streamsWriter()
      random = SeededRandom(seed: seed)
    }

    mutating func publish() throws {
      published += 1
      let isForAnn = published % 5 == 0
      let users = isForAnn ? ["Ann"] : published % 7 == 0 ? ["Bob"] : []
      let isWanted = published % 3 != 0
      try writer.publish(
        published, type: isWanted ? "all" : "other", users: users,
        padding: .random(in: 0...3000, using: &random))
      if isForAnn || (isWanted && users.isEmpty) { expected.append(published) }
    }
  }

  private func identity() throws -> ConnectionIdentity {
    try #require(ConnectionIdentity([Credential(user: "Ann", session: "s")]))
  }

  @Test(
    "15.6 an event stream has each event once and in order, however slow its client is",
    arguments: 1...6 as ClosedRange<UInt64>, [true, false])
  func eventStream(seed: UInt64, isDirect: Bool) throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 8_000 }
    var traffic = try Traffic(gateway, seed: seed)
    let client = try TestClient()
    var connection = try worker.openSSE(client, [.to("all")], identity: identity(), isDirect: isDirect)
    let serial = connection.serial
    var moves = 0
    for _ in 0..<500 {
      switch Int.random(in: 0..<7, using: &traffic.random) {
      case 0...2: try traffic.publish()
      case 3: worker.run()
      case 4: client.read(atMost: .random(in: 1...40_000, using: &traffic.random))
      case 5: client.socket.pump()
      default:
        moves += 1
        // Through the channel nobody counts what has been written: it is taken over when all of a piece has.
        guard isDirect || !client.socket.isWaiting else { break }
        connection = try worker.takeOver(connection, client)
      }
    }
    repeat {
      worker.run()
      client.socket.pump()
    } while client.read() || client.socket.isWaiting
    #expect(numbers(client.take()) == traffic.expected)
    #expect(moves > 20 && connection.serial == serial && worker.connections.table.count == 1)
    client.disconnect()
  }

  /// Texts and pongs of a stream of unmasked frames.
  private func frames(_ bytes: [UInt8]) -> (numbers: [Int], pongs: [[UInt8]]) {
    var numbers: [Int] = []
    var pongs: [[UInt8]] = []
    var rest = bytes[...]
    while rest.count >= 2 {
      let opcode = rest.removeFirst()
      var length = Int(rest.removeFirst())
      let extra = length == 126 ? 2 : length == 127 ? 8 : 0
      if extra > 0 {
        length = rest.prefix(extra).reduce(0) { $0 << 8 | Int($1) }
        rest = rest.dropFirst(extra)
      }
      #expect(rest.count >= length && (opcode == 0x81 || opcode == 0x8A))
      let payload = Array(rest.prefix(length))
      let text = String(decoding: payload, as: UTF8.self)
      if opcode == 0x8A {
        pongs.append(payload)
      } else if text.hasPrefix(#"{"n":"#), let number = Int(text.dropFirst(5).prefix { $0.isNumber }) {
        numbers.append(number)
      }
      rest = rest.dropFirst(length)
    }
    #expect(rest.isEmpty, "cut within a frame")
    return (numbers, pongs)
  }

  @Test(
    "15.6 a WebSocket has each event and each pong once and in order, wherever its own frames are cut",
    arguments: 1...6 as ClosedRange<UInt64>)
  func webSocket(seed: UInt64) throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 60_000 }
    var traffic = try Traffic(gateway, seed: seed)
    let client = try TestClient()
    var connection = try worker.openWebSocket(client, [.to("all")], identity: identity())
    var unsaid: [UInt8] = []
    var pings: [[UInt8]] = []
    for _ in 0..<500 {
      switch Int.random(in: 0..<8, using: &traffic.random) {
      case 0...1: try traffic.publish()
      case 2: worker.run()
      case 3: client.read(atMost: .random(in: 1...40_000, using: &traffic.random))
      case 4: client.socket.pump()
      case 5...6:
        if unsaid.isEmpty {
          let payload = [UInt8](repeating: UInt8(pings.count % 256), count: pings.count % 100)
          pings.append(payload)
          unsaid = ClientFrame(opcode: 9, payload: payload).bytes
        }
        let count = Int.random(in: 1...unsaid.count, using: &traffic.random)
        try client.channel.writeInbound(ByteBuffer(bytes: unsaid.prefix(count)))
        unsaid.removeFirst(count)
      default: connection = try worker.takeOver(connection, client)
      }
    }
    if !unsaid.isEmpty { try client.channel.writeInbound(ByteBuffer(bytes: unsaid)) }
    repeat {
      worker.run()
      client.socket.pump()
    } while client.read() || client.socket.isWaiting
    let seen = frames(client.takeBytes())
    #expect(seen.numbers == traffic.expected && seen.pongs == pings)
    #expect(worker.connections.table.count == 1)
    client.disconnect()
  }

  @Test(
    "15.6 a long-polling session has each event once and in order, also if a poll was waiting",
    arguments: 1...6 as ClosedRange<UInt64>)
  func polling(seed: UInt64) throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker()
    var traffic = try Traffic(gateway, seed: seed)
    var session = worker.insertSession()
    worker.connections.begin(
      session, ConnectRequest([.to("all")], identity: try identity()), .fromNow)
    var lastEventID = session.polls?.initialEventID
    var seen: [Int] = []
    func poll() {
      _ = session.polls?.poll(lastEventID: lastEventID) { answer in
        lastEventID = answer.lastEventID
        let body = String(decoding: answer.body, as: UTF8.self)
        for part in body.split(separator: "{") where part.hasPrefix(#""n":"#) {
          if let number = Int(part.dropFirst(4).prefix { $0.isNumber }) { seen.append(number) }
        }
      }
    }
    poll()
    for _ in 0..<300 {
      switch Int.random(in: 0..<6, using: &traffic.random) {
      case 0...1: try traffic.publish()
      case 2: worker.run()
      case 3...4: poll()
      default: session = try worker.takeOver(session, nil)
      }
      // The session gives what its client hasn't acknowledged, and not more than it may keep.
      if traffic.published % 20 == 0 {
        worker.run()
        poll()
      }
    }
    for _ in 0..<50 {
      worker.run()
      poll()
    }
    #expect(seen == traffic.expected)
    #expect(worker.connections.table.count == 1)
    worker.connections.closed(session)
  }
}
