// Indices are used again, serials never.

import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("Connection table")
struct ConnectionTableTests {
  private func insert(
    _ table: inout ConnectionTable, _ worker: TestWorker,
    _ transport: TransportState = .eventStream(isChunked: false)
  ) -> Connection {
    table.insert(second: 5) {
      Connection(
        polled: ConnectionState(serial: $1, transport), at: $0, of: worker.connections, worker.polls)
    }
  }

  private func session() -> TransportState {
    .longPolling(Boxed(LongPollSession(limits: .init(), cursor: Cursor(epoch: 1), nowNs: 0)))
  }

  @Test("uses indices again and no serial twice, also not after a restart")
  func serials() throws {
    let worker = try TestGateway().worker()
    var random = SeededRandom(seed: 3)
    var serials = Set<UInt64>()
    for incarnation in 1...3 as ClosedRange<UInt64> {
      var table = ConnectionTable(incarnation: incarnation)
      var open: [Connection] = []
      for _ in 0..<2000 {
        if open.isEmpty || Bool.random(using: &random) {
          let connection = insert(&table, worker)
          #expect(serials.insert(connection.serial).inserted)
          open.append(connection)
        } else {
          let connection = open.remove(at: .random(in: open.indices, using: &random))
          let isRemoved = table.remove(connection)
          #expect(isRemoved)
          #expect(table.find(serial: connection.serial) == nil)
        }
        #expect(table.count == open.count)
      }
      #expect(table.capacity < 500, "indices are used again")
      for connection in open {
        #expect(table.find(serial: connection.serial) === connection)
        #expect(table[connection.index] === connection)
      }
      #expect(Set(open.map(\.index)).count == open.count)
      #expect(table.all.count == open.count)
    }
  }

  @Test("13.A3: gives nothing of a former owner, or of whoever wrote to a free place, to the next one")
  func freshPlace() throws {
    let worker = try TestGateway().worker()
    var table = ConnectionTable(incarnation: 1)
    let former = insert(&table, worker)
    table.remove(former)
    let place = Int(former.index)
    table.privileges[place] = true
    table.expiries[place] = 7
    table.deadlines[place] = 7
    table.descriptors[place] = 7
    #expect(insert(&table, worker).index == former.index)
    #expect(!table.privileges[place] && table.expiries[place] == 0)
    #expect(table.deadlines[place] == 0 && table.descriptors[place] == -1)
  }

  @Test(
    "15.6 enters connections of another process of the place by their serials, also where their index is taken"
  )
  func adopted() throws {
    let worker = try TestGateway().worker()
    var earlier = ConnectionTable(incarnation: 1)
    var table = ConnectionTable(incarnation: 2)
    let own = (0..<3).map { _ in insert(&table, worker) }
    let theirs = (0..<5).map { _ in insert(&earlier, worker) }
    for former in theirs {
      let adopted = table.adopt(serial: former.serial, second: 9) {
        Connection(polled: former.state, at: $0, of: worker.connections, worker.polls)
      }
      #expect(adopted?.serial == former.serial && table.lastTraffic[Int(adopted?.index ?? 0)] == 9)
      #expect(table.find(serial: former.serial) === adopted)
      let again = table.adopt(serial: former.serial, second: 9) {
        Connection(polled: former.state, at: $0, of: worker.connections, worker.polls)
      }
      #expect(again == nil, "it is here already")
    }
    #expect(table.count == 8 && Set(table.all.map(\.index)).count == 8)
    for connection in own { #expect(table.find(serial: connection.serial) === connection) }
    for former in theirs {
      let adopted = try #require(table.find(serial: former.serial))
      table.remove(adopted)
      #expect(table.find(serial: former.serial) == nil)
      // Whoever has the index now isn't found by the serial of who had it.
      let next = insert(&table, worker)
      #expect(next.index == adopted.index && table.find(serial: former.serial) == nil)
      #expect(table.find(serial: next.serial) === next)
    }
  }

  @Test("finds nobody by a serial that nobody has", arguments: [0, 1, 1 << 20, .max, 0xFFFFF] as [UInt64])
  func unknown(serial: UInt64) throws {
    let worker = try TestGateway().worker()
    var table = ConnectionTable(incarnation: 2)
    #expect(table.find(serial: serial) == nil)
    let connection = insert(&table, worker)
    #expect(table.find(serial: serial) == nil)
    #expect(table.find(serial: connection.serial ^ (1 << 48)) == nil, "another life of the worker")
    #expect(table.find(serial: connection.serial &+ (1 << 20)) == nil, "another use of the index")
  }

  @Test("counts by transport, and leaves nothing of a connection in its columns")
  func columns() throws {
    let worker = try TestGateway().worker()
    var table = ConnectionTable(incarnation: 1)
    let first = insert(&table, worker)
    let second = insert(&table, worker, session())
    #expect(
      table.count(of: .sse) == 1 && table.count(of: .longPolling) == 1 && table.count(of: .webSocket) == 0)
    #expect(Array(table.transports) == [.sse, .longPolling])
    table.descriptors[Int(first.index)] = 9
    table.deadlines[Int(first.index)] = 8
    var removals = [table.remove(first), table.remove(first)]
    #expect(removals == [true, false], "only once")
    #expect(table.transports[Int(first.index)] == .none)
    #expect(table.descriptors[Int(first.index)] == -1)
    #expect(table.deadlines[Int(first.index)] == 0)
    #expect(table.count(of: .sse) == 0)
    let third = insert(&table, worker, worker.intake.state(ConnectRequest(), isDeflated: false))
    #expect(third.index == first.index)
    removals = [table.remove(first)]
    #expect(removals == [false], "the index is somebody else's now")
    #expect(table[third.index] === third)
    #expect(table[7] == nil)
    removals = [table.remove(second), table.remove(third)]
    #expect(removals == [true, true])
    #expect(table.count == 0)
  }
}
