// The way out of one connection: in order whatever way it takes, whole to the end, and never on a descriptor that is
// somebody else's.

import NIOCore
import NIOEmbedded
import Testing

@testable import Connections

private final class Owner: OutletOwner {
  var waiting = Backlog()
  var drained = 0
  var finished = 0
  var lost = 0
  func outletDidDrain() { drained += 1 }
  func outletDidFinish() { finished += 1 }
  func outletHasNoChannel() { lost += 1 }
}

@Suite("Outlet")
struct OutletTests {
  private let owner = Owner()

  private func outlet(_ client: TestClient, limitBytes: Int = 1000) -> Outlet {
    let outlet = Outlet(channel: client.channel, descriptor: client.near, limitBytes: limitBytes)
    outlet.owner = owner
    return outlet
  }

  private func piece(_ number: Int, _ count: Int = 50_000) -> [UInt8] {
    Array("\(number):".utf8) + [UInt8](repeating: UInt8(ascii: "."), count: count) + [UInt8(ascii: "\n")]
  }

  private func pieceNumbers(_ text: String) -> [Int] {
    text.split(separator: "\n").compactMap { Int($0.prefix { $0 != ":" }) }
  }

  @Test("sends directly while the socket has room")
  func direct() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    #expect(outlet.directDescriptor == client.near)
    outlet.send(Array("a".utf8))
    outlet.send(Array("b".utf8))
    #expect(outlet.waitingBytes == 0 && !client.socket.isWaiting)
    #expect(client.take() == "ab")
  }

  @Test("16.5 on a socket of another process it makes its channel when that is needed, once")
  func channelWhenNeeded() throws {
    let client = try TestClient()
    let outlet = Outlet(socket: client.near, limitBytes: 1000)
    outlet.owner = owner
    var made = 0
    outlet.whenNeeded {
      made += 1
      return client.channel
    }
    outlet.send(Array("a\n".utf8))
    #expect(client.take() == "a\n" && made == 0 && outlet.directDescriptor == client.near)
    for number in 0..<20 { outlet.send(piece(number)) }
    #expect(made == 1 && outlet.isWaiting)
    #expect(pieceNumbers(client.take()) == Array(0..<20))
    #expect(made == 1 && owner.drained == 1 && owner.lost == 0)
    outlet.close()
  }

  @Test("16.5 if no channel can be made its owner is told, and nothing more is sent")
  func noChannel() throws {
    let client = try TestClient()
    let outlet = Outlet(socket: client.near, limitBytes: 1000)
    outlet.owner = owner
    outlet.whenNeeded { nil }
    outlet.send(piece(0))
    #expect(owner.lost == 1 && outlet.channel == nil)
    outlet.close()
    outlet.send(Array("a".utf8))
    #expect(pieceNumbers(client.take()) == [0] && outlet.directDescriptor == -1)
  }

  @Test("lets everything wait behind what waits, and is direct again when all has gone")
  func full() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    let first = [piece(0)]
    let isHeld = outlet.hold()
    for piece in first { outlet.send(piece) }
    outlet.release(throughChannel: true)
    #expect(isHeld && client.socket.writes == 1)
    for number in 1..<20 { outlet.send(piece(number)) }
    #expect(outlet.directDescriptor == -1)
    #expect(outlet.isOverfull)
    #expect(client.socket.isWaiting)
    #expect(pieceNumbers(client.take()) == Array(0..<20))
    #expect(outlet.directDescriptor == client.near)
    #expect(outlet.waitingBytes == 0 && !outlet.isOverfull)
    #expect(owner.drained > 0)
  }

  @Test("one event of any size isn't too much")
  func oneLargeEvent() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    outlet.send(piece(0, 2_000_000))
    #expect(outlet.waitingBytes > 1000)
    #expect(!outlet.isOverfull)
    outlet.send(piece(1, 1))
    #expect(outlet.isOverfull)
    #expect(pieceNumbers(client.take()) == [0, 1])
  }

  @Test("14.26 knows whether the client takes anything of what waits, and whether it takes answers")
  func stuck() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    for number in 0..<3 { outlet.send(piece(number), isInRing: true) }
    #expect(outlet.isWaiting && outlet.isOverfull && !outlet.isOverfullOfAnswers)
    #expect(!outlet.isStuck(second: 10, for: 5), "it is looked at for the first time")
    #expect(!outlet.isStuck(second: 14, for: 5))
    #expect(outlet.isStuck(second: 15, for: 5))
    client.read(atMost: 5_000)
    #expect(
      !outlet.isStuck(second: 16, for: 5),
      "the kernel has less to send, though nothing more has been given to it")
    #expect(!outlet.isStuck(second: 20, for: 5))
    #expect(outlet.isStuck(second: 21, for: 5))
    client.socket.pump()
    #expect(!outlet.isStuck(second: 22, for: 5), "NIO could write")
    outlet.forgetProgress()
    #expect(!outlet.isStuck(second: 90, for: 5))
    outlet.send(piece(3))
    #expect(!outlet.isOverfullOfAnswers, "one may always wait")
    outlet.send(piece(4))
    #expect(outlet.isOverfullOfAnswers)
    #expect(pieceNumbers(client.take()) == Array(0..<5))
    #expect(!outlet.isWaiting)
  }

  @Test("sends the farewell behind what waits, and nothing after it", arguments: [false, true])
  func farewell(dropping: Bool) throws {
    let client = try TestClient()
    let outlet = outlet(client)
    for number in 0..<20 { outlet.send(piece(number), isInRing: true) }
    outlet.finish(with: piece(99), dropping: dropping)
    outlet.finish(with: piece(100), dropping: dropping)
    outlet.send(piece(101))
    #expect(outlet.directDescriptor == -1)
    #expect(owner.finished == 0 && !outlet.hasFinished)
    let seen = pieceNumbers(client.take())
    #expect(owner.finished == 1 && outlet.hasFinished)
    #expect(seen.last == 99)
    #expect(Array(seen.dropLast()) == Array(0..<seen.count - 1), "whole and in order")
    #expect(dropping ? seen.count < 20 : seen.count == 21)
    #expect(outlet.directDescriptor == -1)
  }

  @Test("has finished at once when nothing waits")
  func quickFarewell() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    outlet.finish(with: Array("bye".utf8), dropping: false)
    #expect(owner.finished == 1)
    #expect(client.take() == "bye")
  }

  @Test("over TLS everything goes through the channel, in order and to the farewell")
  func throughChannel() throws {
    let client = try TestClient()
    let outlet = Outlet(channel: client.channel, descriptor: -1, limitBytes: 1000)
    outlet.owner = owner
    outlet.send(piece(0, 10))
    #expect(outlet.directDescriptor == -1 && outlet.waitingBytes == 0)
    #expect(owner.drained == 1)
    for number in 1..<20 { outlet.send(piece(number)) }
    #expect(outlet.isOverfull && client.socket.isWaiting)
    outlet.finish(with: piece(99), dropping: false)
    #expect(owner.finished == 0)
    #expect(pieceNumbers(client.take()) == Array(0..<20) + [99])
    #expect(owner.finished == 1 && outlet.hasFinished)
  }

  @Test("over TLS the events of one turn share a chunk")
  func sharedChunk() throws {
    let client = try TestClient()
    let outlet = Outlet(channel: client.channel, descriptor: -1, limitBytes: 1000)
    outlet.owner = owner
    for number in 0..<20 {
      outlet.keep(piece(number, 100).withUnsafeBytes { SharedBytes(copying: $0, isInRing: true) }, sent: 0)
    }
    outlet.resume()
    #expect(client.socket.writes == 1)
    #expect(pieceNumbers(client.take()) == Array(0..<20))
  }

  @Test("over TLS a large event goes out chunk by chunk and not level by level")
  func manyChunks() throws {
    let channel = EmbeddedChannel()
    let outlet = Outlet(channel: channel, descriptor: -1, limitBytes: 1000)
    outlet.owner = owner
    let event = [UInt8](repeating: 1, count: 64 << 20)
    outlet.send(event)
    #expect(outlet.waitingBytes == 0 && owner.drained == 1)
    var received = 0
    while let chunk = try channel.readOutbound(as: ByteBuffer.self) { received += chunk.readableBytes }
    #expect(received == event.count)
  }

  @Test("doesn't touch the descriptor once the channel has closed")
  func closed() throws {
    let client = try TestClient()
    let outlet = outlet(client)
    for number in 0..<20 { outlet.send(piece(number)) }
    outlet.close()
    client.socket.abandon()
    client.readAll()
    let before = client.received.count
    outlet.send(piece(1))
    outlet.keep(piece(2).withUnsafeBytes { SharedBytes(copying: $0, isInRing: true) }, sent: 0)
    outlet.resume()
    outlet.finish(with: piece(3), dropping: false)
    client.readAll()
    #expect(client.received.count == before)
    #expect(outlet.directDescriptor == -1 && outlet.waitingBytes == 0)
    #expect(owner.finished == 0)
  }
}
