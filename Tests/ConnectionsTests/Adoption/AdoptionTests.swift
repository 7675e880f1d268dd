// What an heir does with what a dead worker has left, case by case. That nothing is lost or doubled whenever it dies: SuccessionTests.

import Glibc
import Links
import TestSupport
import Testing
import Tokens

@testable import Connections
@testable import IPC
@testable import Kit

/// Brings what a test gives it.
private final class ScriptedCourier: SocketCourier {
  var messages: [Courier.Message]
  private(set) var asked = 0
  private(set) var takenCount = 0

  init(_ messages: [Courier.Message]) { self.messages = messages }

  func ask() { asked += 1 }

  func receive() -> Courier.Message { messages.isEmpty ? .nothing : messages.removeFirst() }

  func taken() { takenCount += 1 }
}

@Suite("16.5 Adoption")
struct AdoptionTests {
  private func gateway() throws -> TestGateway {
    try TestGateway(ledger: LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20))
  }

  private func clients(_ areWebSockets: [Bool]) throws -> [SurvivingClient] {
    try areWebSockets.enumerated().map { try SurvivingClient(isWebSocket: $1, cookie: UInt64($0) + 1) }
  }

  private func dropped(_ life: WorkerLife, _ reason: Recovery.Drop) -> Int64 {
    life.worker.metric(#"rig_adoption_dropped_total{reason="\#(reason.rawValue)"}"#) ?? 0
  }

  private func adopted(_ life: WorkerLife) -> Int64 {
    life.worker.metric(#"rig_adopted_connections_total{cause="killed"}"#) ?? 0
  }

  private func openEntries(_ life: WorkerLife) -> Int { life.worker.connections.ledger.openEntries }

  @Test(
    "16.5 what comes while sockets are awaited is delivered behind the last of them, to old and new connections"
  )
  func holding() throws {
    let clients = try clients([false, false])
    let former = try WorkerLife(try gateway(), clients)
    for client in clients { try former.open(client, [.to("all")]) }
    try former.writer.publish(1, type: "all")
    former.worker.run()
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    var courier: ScriptedCourier?
    heir.inherit({ sockets in
      let scripted = ScriptedCourier([.batch(sockets, lost: [])])
      courier = scripted
      return scripted
    })
    heir.worker.run()
    let newcomer = try TestClient()
    try heir.worker.openSSE(newcomer, [.to("all")])
    try heir.writer.publish(2, type: "all")
    heir.worker.run()
    #expect(courier?.asked == 1 && courier?.takenCount == 1)
    #expect(heir.worker.adoption.holdsDelivery && newcomer.take() == "")
    courier?.messages = [.done]
    heir.worker.run()
    #expect(heir.worker.adoption.isOver && !heir.worker.adoption.holdsDelivery)
    #expect(numbers(newcomer.take()) == [2])
    for client in clients {
      #expect(numbers(String(decoding: client.everything().dropFirst(6), as: UTF8.self)) == [1, 2])
    }
    #expect(adopted(heir) == 2 && openEntries(heir) == 2, "nothing but connections is left in the ledger")
    withExtendedLifetime((former, heir)) {}
  }

  @Test(
    "16.5 a socket that doesn't come, one that is another's, and one that isn't TCP any more are dropped and counted"
  )
  func drops() throws {
    let clients = try clients([false, false, false, false])
    let former = try WorkerLife(try gateway(), clients)
    for client in clients { try former.open(client, [.to("all")]) }
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    // Of what a socket of another cookie is told nobody knows anything.
    let other = try SurvivingClient(cookie: 99)
    let copy = dup(other.socket.near)
    heir.sockets.clients[copy] = other
    heir.inherit({ sockets in
      ScriptedCourier([
        .batch(
          [
            sockets[0], Courier.Socket(entry: sockets[1].entry, descriptor: copy),
            Courier.Socket(entry: sockets[3].entry, descriptor: dup(STDERR_FILENO)),
          ], lost: []), .done,
      ])
    })
    heir.worker.run()
    #expect(heir.worker.adoption.isOver && adopted(heir) == 1)
    #expect(dropped(heir, .absent) == 1 && dropped(heir, .gone) == 1 && dropped(heir, .cookie) == 1)
    #expect(heir.worker.connections.table.count == 1 && openEntries(heir) == 1)
    withExtendedLifetime((former, heir)) {}
  }

  @Test("16.5 sockets that didn't fit under the heir's limit are lost, and the batch is told as taken")
  func lost() throws {
    let clients = try clients([false, false])
    let former = try WorkerLife(try gateway(), clients)
    for client in clients { try former.open(client, [.to("all")]) }
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    var courier: ScriptedCourier?
    heir.inherit({ sockets in
      let scripted = ScriptedCourier([.batch([], lost: sockets.compactMap(\.entry)), .gone])
      courier = scripted
      return scripted
    })
    heir.worker.run()
    #expect(dropped(heir, .room) == 2 && courier?.takenCount == 1 && openEntries(heir) == 0)
    withExtendedLifetime((former, heir)) {}
  }

  @Test(
    "16.5 the connection whose input a worker died of, by a fault or a hang, ends with it; the others go on",
    arguments: [
      (WorkerManifest.Inheritance.Cause.fault, Int64(1)), (.hung, 1), (.killed, 0),
    ])
  func suspect(cause: WorkerManifest.Inheritance.Cause, ended: Int64) throws {
    let clients = try clients([false, true])
    let former = try WorkerLife(try gateway(), clients)
    for client in clients { try former.open(client, [.to("all")]) }
    let speaker = try #require(former.worker.connections.table.all.first { $0.webSocket != nil })
    former.worker.connections.ledger.plan.suspect(serial: speaker.serial)
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    heir.inherit({ ScriptedCourier([.batch($0, lost: []), .done]) }, cause: cause)
    heir.worker.run()
    #expect(dropped(heir, .suspect) == ended)
    #expect(heir.worker.connections.table.count == 2 - Int(ended) && openEntries(heir) == 2 - Int(ended))
    withExtendedLifetime((former, heir)) {}
  }

  @Test(
    "16.8 a record that two processes died of is passed over, counted and told; with one death it is tried again",
    arguments: [
      (2, WorkerManifest.Inheritance.Cause.fault, [1, 3]), (2, .hung, [1, 3]), (1, .fault, [1, 2, 3]),
      (3, .killed, [1, 2, 3]),
    ])
  func poison(deaths: Int, cause: WorkerManifest.Inheritance.Cause, expected: [Int]) throws {
    let clients = try clients([false, false])
    var life = try WorkerLife(try gateway(), clients)
    for client in clients { try life.open(client, [.to("all")]) }
    let ring = try #require(life.gateway.eventGrants.first)
    let poison = life.worker.connections.events.own[0] + 2
    for number in 1...3 { try life.writer.publish(number, type: "all") }
    var lives = [life]
    for _ in 0..<deaths {
      life.worker.connections.ledger.plan.suspect(ring: ring.id, sequence: poison)
      life.die()
      life = try life.next()
      lives.append(life)
      life.inherit({ ScriptedCourier([.batch($0, lost: []), .done]) }, cause: cause)
    }
    let last = life
    defer { last.end() }
    last.worker.run()
    let isPoison = expected.count < 3
    #expect(
      last.worker.metric(#"rig_poison_records_total{ring="events.streams"}"#) ?? 0 == (isPoison ? 1 : 0))
    for client in clients {
      let text = String(decoding: client.everything().dropFirst(6), as: UTF8.self)
      #expect(numbers(text) == expected)
      #expect(text.contains("rig.events_lost") == isPoison)
    }
    // Nothing of it keeps this worker from going on, nor its heir.
    try last.writer.publish(4, type: "all")
    last.worker.run()
    for client in clients {
      #expect(
        numbers(String(decoding: client.everything().dropFirst(6), as: UTF8.self)) == expected + [4])
    }
    withExtendedLifetime(lives) {}
  }

  @Test("16.5 an entry that comes twice is adopted once")
  func twice() throws {
    let clients = try clients([false])
    let former = try WorkerLife(try gateway(), clients)
    try former.open(clients[0], [.to("all")])
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    heir.inherit({ sockets in
      let again = Courier.Socket(entry: sockets[0].entry, descriptor: dup(sockets[0].descriptor))
      return ScriptedCourier([.batch(sockets, lost: []), .batch([again], lost: []), .done])
    })
    try heir.writer.publish(1, type: "all")
    heir.worker.run()
    #expect(adopted(heir) == 1 && heir.worker.connections.table.count == 1)
    #expect(numbers(String(decoding: clients[0].everything().dropFirst(6), as: UTF8.self)) == [1])
    withExtendedLifetime((former, heir)) {}
  }

  @Test("16.5 who was ended while nobody served it is told so when it is adopted")
  func blacklisted() throws {
    let clients = try clients([false, false])
    let gateway = try gateway()
    let former = try WorkerLife(gateway, clients)
    let ann = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s")]))
    let bob = try #require(ConnectionIdentity([Credential(user: "Bob", session: "t")]))
    try former.open(clients[0], [.to("all")], identity: ann)
    try former.open(clients[1], [.to("all")], identity: bob)
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    let state = try heir.gateway.stateWriter()
    let digest = try #require(SessionHasher()?.digest("s"))
    let record = StateRecord.blacklisted(digest, until: .max)
    let bytes = record.encoded
    _ = state.append(type: record.type, length: bytes.count) { $0.copyBytes(from: bytes) }
    state.publish()
    heir.inherit({ ScriptedCourier([.batch($0, lost: []), .done]) })
    heir.worker.run()
    let text = String(decoding: clients[0].everything(), as: UTF8.self)
    #expect(text.contains("rig.session_killed"), "\(text.suffix(300))")
    #expect(!String(decoding: clients[1].everything(), as: UTF8.self).contains("rig.session_killed"))
    #expect(openEntries(heir) == 1)
    withExtendedLifetime((former, heir)) {}
  }

  @Test("16.5 a WebSocket goes on in the middle of a frame", arguments: [1, 3, 5, 8])
  func halfFrame(given: Int) throws {
    let clients = try clients([true])
    let former = try WorkerLife(try gateway(), clients)
    try former.open(clients[0], [.to("all")])
    let ping = ClientFrame(opcode: 9, payload: [7, 8, 9]).bytes
    try clients[0].socket.say(Array(ping.prefix(given)))
    former.die()
    let heir = try former.next()
    defer { heir.end() }
    heir.inherit({ ScriptedCourier([.batch($0, lost: []), .done]) })
    heir.worker.run()
    try clients[0].socket.say(Array(ping.dropFirst(given)))
    #expect(Array(clients[0].everything().dropFirst(6)) == [0x8A, 3, 7, 8, 9])
    withExtendedLifetime((former, heir)) {}
  }

  @Test("16.5 a WebSocket of whose client something was read that nobody noted is closed with 1012")
  func lostInput() throws {
    let clients = try clients([true])
    let former = try WorkerLife(try gateway(), clients)
    try former.open(clients[0], [.to("all")])
    // Who speaks is noted first.
    former.left = 2
    try clients[0].socket.say(ClientFrame(opcode: 9, payload: [7, 8, 9]).bytes)
    let heir = try former.next()
    defer { heir.end() }
    heir.inherit({ ScriptedCourier([.batch($0, lost: []), .done]) })
    heir.worker.run()
    let frames = Array(clients[0].everything().dropFirst(6))
    // What was about to be said comes first, then the close frame.
    #expect(frames.prefix(5) == [0x8A, 3, 7, 8, 9] && frames.count > 9 && frames[5] == 0x88)
    #expect(UInt16(frames[7]) << 8 | UInt16(frames[8]) == 1012)
    #expect(openEntries(heir) == 0)
    withExtendedLifetime((former, heir)) {}
  }

  @Test("16.5 connections count for their address by their age, whichever worker opened them")
  func limits() throws {
    let clients = try clients([false, false])
    let former = try WorkerLife(try gateway(), clients) { $0.maxConnectionsPerUser = 2 }
    for (number, client) in clients.enumerated() {
      let identity = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s\(number)")]))
      try former.open(client, [.to("all")], identity: identity)
    }
    former.die()
    let heir = try former.next { $0.maxConnectionsPerUser = 2 }
    defer { heir.end() }
    heir.inherit({ ScriptedCourier([.batch($0.reversed(), lost: []), .done]) })
    heir.worker.run()
    #expect(heir.worker.connections.table.count == 2)
    let third = try TestClient()
    let identity = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s3")]))
    try heir.worker.openSSE(third, [.to("all")], identity: identity)
    let closed = clients.map { String(decoding: $0.everything(), as: UTF8.self).contains("too many") }
    #expect(closed.filter { $0 }.count == 1, "one of the older ones gives way")
    withExtendedLifetime((former, heir)) {}
  }
}
