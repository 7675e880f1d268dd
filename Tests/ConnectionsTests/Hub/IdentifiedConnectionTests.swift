// Whose a connection is, in one worker: addressed events, ended sessions, tokens that end, presence.

import IPC
import Kit
import Links
import NIOCore
import Testing
import Tokens

@testable import Connections

@Suite("Connection workers, identity")
struct IdentifiedConnectionTests {
  private func identity(
    _ user: String?, session: String? = nil, roles: [String] = [], until: Double? = nil,
    follows: [String] = [], followsRoles: [String] = []
  ) -> ConnectionIdentity {
    var identity = ConnectionIdentity()
    _ = identity.adopt([Credential(user: user, session: session, roles: roles, validUntil: until)])
    identity.followedUsers = follows
    identity.followedRoles = followsRoles
    return identity
  }

  private func end(_ session: String, in gateway: TestGateway) throws {
    let digest = try #require(SessionHasher()?.digest(session))
    try say(.blacklisted(digest, until: .max), in: gateway)
  }

  private func say(_ record: StateRecord, in gateway: TestGateway) throws {
    let writer = try gateway.stateWriter()
    let bytes = record.encoded
    _ = writer.append(type: record.type, length: bytes.count) { $0.copyBytes(from: bytes) }
    writer.publish()
  }

  @Test("an addressed event goes to every connection of its users, once, and to nobody else")
  func addressed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let clients = try (0..<4).map { _ in try TestClient() }
    try worker.openSSE(clients[0], [], identity: identity("alice"))
    try worker.openSSE(clients[1], [.to("*")], identity: identity("alice"))
    try worker.openSSE(clients[2], [.to("*")], identity: identity("bob"))
    try worker.openSSE(clients[3], [.to("*")])
    try writer.publish(1, users: ["alice"])
    try writer.publish(2, users: ["alice", "bob", "nobody"])
    try writer.publish(3)
    worker.run()
    #expect(clients.map { numbers($0.take()) } == [[1, 2], [1, 2, 3], [2, 3], [3]])
    clients[0].disconnect()
    try writer.publish(4, users: ["alice"])
    worker.run()
    #expect(clients[1...].map { numbers($0.take()) } == [[4], [], []])
    for client in clients[1...] { client.disconnect() }
    #expect(worker.identities.userCount == 0)
  }

  @Test("who follows a user, or a role that the user holds, gets its events once")
  func followers() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.privilegedRoles = ["support"] }
    let writer = try gateway.streamsWriter()
    let clients = try (0..<2).map { _ in try TestClient() }
    try worker.openSSE(
      clients[0], [], identity: identity("carol", follows: ["alice"], followsRoles: ["customer"]))
    try worker.openSSE(clients[1], [], identity: identity("dave", followsRoles: ["customer"]))
    try writer.publish(1, users: ["alice"])
    worker.run()
    #expect(clients.map { numbers($0.take()) } == [[1], []], "nobody knows yet what alice is")
    try say(.online(user: "alice", roles: ["customer"]), in: gateway)
    worker.run()
    try writer.publish(2, users: ["alice"])
    worker.run()
    #expect(clients.map { numbers($0.take()) } == [[2], [2]])
    try say(.offline(user: "alice"), in: gateway)
    worker.run()
    try writer.publish(3, users: ["alice"])
    worker.run()
    #expect(clients.map { numbers($0.take()) } == [[3], []])
    for client in clients { client.disconnect() }
  }

  @Test("a client that comes back gets the addressed events that it missed, and no one else's")
  func resumed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let cursor = worker.events.own.text
    try writer.publish(1, users: ["alice"])
    try writer.publish(2, users: ["bob"])
    try writer.publish(3)
    worker.run()
    let client = try TestClient()
    try worker.openSSE(client, [.to("greeting")], lastEventID: cursor, identity: identity("alice"))
    worker.run()
    try writer.publish(4, users: ["alice"])
    worker.run()
    #expect(numbers(client.take()) == [1, 3, 4])
    client.disconnect()
  }

  @Test("a session that is ended takes its connections with it at once, with the reason, and no others")
  func killed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let clients = try (0..<3).map { _ in try TestClient() }
    try worker.openSSE(clients[0], [], identity: identity("alice", session: "a"))
    try worker.openWebSocket(clients[1], [], identity: identity("alice", session: "a"))
    try worker.openSSE(clients[2], [], identity: identity("alice", session: "b"))
    try end("a", in: gateway)
    worker.run()
    #expect(streamed(clients[0].take()).map(\.name) == ["rig.session_killed"])
    let frames = clients[1].take()
    #expect(frames.contains(#""type":"rig.session_killed""#) && frames.hasSuffix("session killed"))
    #expect(clients[2].take() == "")
    #expect(worker.access.authority.digests(of: ["a"]) == nil)
    #expect(worker.access.authority.digests(of: ["b"]) != nil)
    for client in clients { client.disconnect() }
  }

  @Test("a new worker knows what its predecessor was told, before it serves anybody")
  func reborn() throws {
    let gateway = try TestGateway()
    let first = try gateway.worker()
    try end("a", in: gateway)
    first.run()
    try end("b", in: gateway)
    let second = try gateway.worker()
    second.state.catchUp()
    for session in ["a", "b"] {
      #expect(second.access.authority.digests(of: [session]) == nil, "\(session)")
    }
    #expect(second.access.authority.digests(of: ["c"]) != nil)
  }

  @Test(
    "who opens a connection while its session is being ended is told so, and a PUT with such a token is refused"
  )
  func endedMeanwhile() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    try end("a", in: gateway)
    worker.run()
    let clients = try (0..<2).map { _ in try TestClient() }
    let refused = try worker.openSSE(clients[0], [], identity: identity("alice", session: "a"))
    #expect(refused.isClosing)
    #expect(clients[0].opening.contains("event: rig.session_killed"))
    let other = try worker.openSSE(clients[1], [.to("x")], identity: identity("bob"))
    let change = SubscriptionChange([], [Credential(user: "alice", session: "a")])
    #expect(worker.change(other, change)?.status == 401)
    #expect(worker.subscriptions.index.subscriptions(of: other.index) == [.to("x")], "as they were")
    #expect(other.identity?.users == ["bob"])
    for client in clients { client.disconnect() }
  }

  /// Calls back when the connection in front of it ends its side.
  private final class EndTrap: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    var onEnd: () -> Void = {}

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
      onEnd()
      context.close(mode: mode, promise: promise)
    }
  }

  @Test(
    "13.A3: a connection that is found gone while another makes room for it leaves nothing in its place",
    arguments: [ConnectionLimits.Subject.address, .user])
  func goneMeanwhile(subject: ConnectionLimits.Subject) throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker {
      $0.maxConnectionsPerAddress = subject == .address ? 1 : 0
      $0.maxConnectionsPerUser = subject == .user ? 1 : 0
      $0.privilegedRoles = ["support"]
    }
    let clients = try (0..<2).map { _ in try TestClient() }
    let trap = EndTrap()
    try clients[0].channel.pipeline.syncOperations.addHandler(trap)
    func open(_ client: TestClient, session: String) throws -> Connection {
      let connection = worker.insertSSE(client)
      try client.channel.pipeline.syncOperations.addHandler(connection)
      trap.onEnd = { worker.connections.closed(connection) }
      var wanted = ConnectRequest(
        [], identity: identity("alice", session: session, until: 4_000_000_000), isPrivileged: true)
      wanted.origin.remote = "192.0.2.1"
      connection.open(with: Array("open\n\n".utf8), mayHoldOutput: false) {
        worker.connections.begin(connection, wanted, worker.events.resumption(lastEventID: nil))
      }
      return connection
    }
    let first = try open(clients[0], session: "a")
    let gone = try open(clients[1], session: "b")
    #expect(first.isClosing && gone.isClosing && worker.connections.table[gone.index] == nil)
    let place = Int(gone.index)
    #expect(!worker.connections.table.privileges[place] && worker.connections.table.expiries[place] == 0)
    let digest = try #require(SessionHasher()?.digest("b"))
    #expect(Array(worker.identities.connections(of: digest)).isEmpty)
    #expect(!worker.connections.identify(gone, identity("alice", session: "b"), isPrivileged: true))
    #expect(
      !worker.connections.table.privileges[place] && Array(worker.identities.connections(of: digest)).isEmpty)
    for client in clients { client.disconnect() }
  }

  @Test("a connection ends with its token; a fresh one of the same user keeps it")
  func expiry() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let clients = try (0..<2).map { _ in try TestClient() }
    // A token that was valid when the connection was opened, and isn't any more.
    let past = identity("alice", session: "a", until: 1)
    try worker.openSSE(clients[0], [], identity: past)
    let kept = try worker.openSSE(clients[1], [], identity: past)
    let fresh = Credential(user: "alice", session: "b", validUntil: 4_000_000_000)
    #expect(worker.change(kept, SubscriptionChange([], [fresh]))?.status == 204)
    _ = clients[1].take()
    worker.tick()
    #expect(streamed(clients[0].take()).map(\.name) == ["rig.server_closing"])
    #expect(clients[1].take() == "")
    // Both sessions have been shown for it.
    try end("a", in: gateway)
    worker.run()
    #expect(streamed(clients[1].take()).map(\.name) == ["rig.session_killed"])
    for client in clients { client.disconnect() }
  }

  @Test("an operator closes one connection, or all of a user, but not of those who follow it")
  func closedByOperator() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let clients = try (0..<4).map { _ in try TestClient() }
    let one = try worker.openSSE(clients[0], [], identity: identity("alice"))
    try worker.openSSE(clients[1], [], identity: identity("alice"))
    try worker.openSSE(clients[2], [], identity: identity("bob", follows: ["alice"]))
    try worker.openSSE(clients[3], [])
    try say(.closeConnection(ConnectionID(slot: 1, serial: one.serial)), in: gateway)
    worker.run()
    #expect(clients.map { $0.take() } == ["", "", "", ""], "another worker's")
    try say(.closeConnection(ConnectionID(slot: 0, serial: one.serial)), in: gateway)
    worker.run()
    #expect(clients.map { streamed($0.take()).map(\.name) } == [["rig.server_closing"], [], [], []])
    try say(.closeUser("alice"), in: gateway)
    worker.run()
    #expect(clients.map { streamed($0.take()).map(\.name) } == [[], ["rig.server_closing"], [], []])
    for client in clients { client.disconnect() }
  }

  @Test("presence events go to privileged connections only, whatever the others subscribe to")
  func presenceEvents() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let clients = try (0..<2).map { _ in try TestClient() }
    try worker.openSSE(clients[0], [.to("*")], identity: identity("alice"))
    try worker.openSSE(clients[1], [.to("rig.*")], identity: identity("carol"), isPrivileged: true)
    try writer.publish(1, type: "rig.presence.join")
    worker.run()
    #expect(clients.map { numbers($0.take()) } == [[], [1]])
    for client in clients { client.disconnect() }
  }

  // MARK: Presence

  private func reported(_ reader: RingReader) throws -> [PresenceRecord] {
    var records: [PresenceRecord] = []
    while let record = try reader.next() {
      records.append(try PresenceRecord(type: record.type, record.bytes))
    }
    reader.commit()
    return records
  }

  @Test("identified connections are reported: all at first and when asked, then as they come and go")
  func reports() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let reader = try gateway.presenceReader()
    worker.run()
    #expect(try reported(reader) == [.begin(generation: worker.status.generation), .end])
    let client = try TestClient()
    let other = try TestClient()
    let connection = try worker.openSSE(
      client, [.to("x")], identity: identity("alice", session: "a", roles: ["r"]))
    try worker.openSSE(other, [.to("x")])
    worker.run()
    let present = PresentConnection(
      serial: connection.serial, transport: "sse", sinceUnixMs: 0, users: ["alice"], sessions: ["a"],
      roles: ["r"], remote: "", userAgent: "", subscriptions: Subscription.list([.to("x")]))
    #expect(try reported(reader) == [.opened(present)])
    try say(.reportConnections(generation: 9), in: gateway)
    worker.run()
    #expect(
      try reported(reader) == [.begin(generation: worker.status.generation), .opened(present), .end])
    client.disconnect()
    other.disconnect()
    worker.run()
    #expect(try reported(reader) == [.closed(serial: connection.serial)])
  }

  @Test("what could not be said because the ring was full is made good by a whole report")
  func fullRing() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let reader = try gateway.presenceReader()
    worker.run()
    _ = try reported(reader)
    let clients = try (0..<40).map { _ in try TestClient() }
    let long = String(repeating: "u", count: 1000)
    for (number, client) in clients.enumerated() {
      for part in 0..<4 { try worker.openSSE(client, [], identity: identity("\(long)\(number)-\(part)")) }
    }
    worker.run()
    var open = Set<UInt64>()
    var complete = 0
    for _ in 0..<100 where complete == 0 || open.count < 160 {
      for record in try reported(reader) {
        switch record {
        case .begin: open.removeAll()
        case .opened(let present): open.insert(present.serial)
        case .closed(let serial): open.remove(serial)
        case .end: complete += 1
        }
      }
      worker.tick()
      worker.run()
    }
    #expect(complete > 0)
    #expect(open.count == 160)
    for client in clients { client.disconnect() }
  }
}
