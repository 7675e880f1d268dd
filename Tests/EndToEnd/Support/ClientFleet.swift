// Many Server-Sent Events clients in one thread. Each keeps the account of the numbered events that it saw and the
// cursor of the last one; those that lose their connection come back with it.

import CLinux
import Glibc

final class ClientFleet {
  private struct Member {
    var wire: Wire
    var head: HTTPHead?
    var decoder: BodyDecoder?
    var body = ByteQueue()
    var account = Account()
    var lastEventID: String?
    var isGreeted = false
    var isLost = false
    var reconnections = 0
    var lossesTold = 0
  }

  private let gateway: Gateway
  private let path: String
  private let epoll: CInt
  private var members: [Member] = []
  /// Whether members that lose their connection come back at once.
  var reconnects = true

  private static let eventsPerLook = 16

  init(_ gateway: Gateway, count: Int) throws {
    self.gateway = gateway
    path = "/_rig/v1/connection/sse?subscriptions=" + HTTP.encoded(Subscriptions.to(NumberedEvents.type))
    epoll = rig_epoll_create()
    for _ in 0..<count { try add() }
    try pump("every client is greeted") { $0.members.allSatisfy(\.isGreeted) }
  }

  /// Adds clients until each connection worker holds at least one: who accepts a connection is the kernel's choice.
  func spread() throws {
    try eventually("every connection worker holds a client") {
      if gateway.workers(.connections).allSatisfy({ !members(heldBy: $0).isEmpty }) { return true }
      try add()
      return false
    }
    try pump("every client is greeted") { $0.members.allSatisfy(\.isGreeted) }
  }

  private func add() throws {
    members.append(Member(wire: try Wire(port: gateway.inboundPort)))
    try begin(members.count - 1)
  }

  deinit {
    close(epoll)
  }

  var count: Int { members.count }
  var accounts: [Account] { members.map(\.account) }
  var reconnected: [Int] { members.indices.filter { members[$0].reconnections > 0 } }
  var lost: [Int] { members.indices.filter { members[$0].isLost } }
  var lossesTold: Int { members.reduce(0) { $0 + $1.lossesTold } }

  /// The members whose connection a worker holds.
  func members(heldBy worker: RunningProcess) -> Set<Int> {
    let held = worker.socketInodes
    let inodes = SocketTable.inodes(serverPort: gateway.inboundPort)
    return Set(
      members.indices.filter { inodes[members[$0].wire.localPort].map(held.contains) ?? false })
  }

  /// Reads until `done`; throws when it isn't in time.
  func pump(_ what: String, within seconds: Double = 2 * Deadline.patience, until done: (ClientFleet) -> Bool)
    throws
  {
    let deadline = Deadline(after: seconds)
    while !done(self) {
      guard !deadline.hasPassed else { throw TestFailure("not within \(seconds) s: \(what); \(summary)") }
      try look(Deadline(after: 0.05))
    }
  }

  /// Reads until every member has seen everything below `number`.
  func pump(throughNumber number: Int, within seconds: Double = 2 * Deadline.patience) throws {
    try pump("every client sees \(number) events", within: seconds) {
      $0.members.allSatisfy { $0.account.next >= number }
    }
  }

  /// Reads what comes until the deadline.
  func pump(until deadline: Deadline) throws {
    repeat { try look(deadline) } while !deadline.hasPassed
  }

  var summary: String {
    let behind = members.map(\.account.next).min() ?? 0
    let open = members.count { $0.isGreeted && !$0.isLost }
    return "\(open) of \(members.count) connected, the slowest is at \(behind), \(lossesTold) losses told"
  }

  private func begin(_ index: Int) throws {
    let id = members[index].lastEventID.map { [("last-event-id", $0)] } ?? []
    try members[index].wire.send(HTTPConnection.request("GET", path, headers: id))
    rig_poll_add(epoll, members[index].wire.descriptor, UInt64(index))
  }

  private func look(_ deadline: Deadline) throws {
    var entry = pollfd(fd: epoll, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, deadline.remainingMilliseconds) > 0 else { return }
    var tokens = [UInt64](repeating: 0, count: Self.eventsPerLook)
    let count = rig_poll_wait(epoll, &tokens, CInt(Self.eventsPerLook))
    guard count > 0 else { return }
    for index in tokens[..<Int(count)] { try read(Int(index)) }
  }

  private func read(_ index: Int) throws {
    guard !members[index].isLost else { return }
    try members[index].wire.receive(Deadline(after: 0))
    try understand(&members[index])
    guard members[index].wire.isAtEnd || isRefused(members[index]) else { return }
    rig_poll_remove(epoll, members[index].wire.descriptor)
    members[index].isLost = true
    if reconnects { try reconnect(index) }
  }

  /// Brings back the members that are lost now.
  func reconnectLost() throws {
    for index in lost { try reconnect(index) }
  }

  private func reconnect(_ index: Int) throws {
    members[index].wire = try Wire(port: gateway.inboundPort)
    members[index].head = nil
    members[index].decoder = nil
    members[index].body = ByteQueue()
    members[index].isGreeted = false
    members[index].isLost = false
    members[index].reconnections += 1
    try begin(index)
  }

  private func isRefused(_ member: Member) -> Bool {
    member.head.map { $0.status != 200 } ?? false
  }

  private func understand(_ member: inout Member) throws {
    if member.head == nil {
      guard let length = member.wire.received.distance(to: "\r\n\r\n") else { return }
      let head = try HTTPHead(String(decoding: member.wire.received.take(length + 4), as: UTF8.self))
      member.head = head
      member.decoder = BodyDecoder(head)
    }
    try member.decoder?.decode(&member.wire.received, into: &member.body)
    while let length = member.body.distance(to: "\n\n") {
      try account(Array(member.body.take(length + 2).dropLast(2)), for: &member)
    }
  }

  private func account(_ record: [UInt8], for member: inout Member) throws {
    if let number = NumberedEvents.number(in: record) {
      member.account.add(number)
      if record.starts(with: "id: ".utf8) {
        let line = record.dropFirst(4).prefix { $0 != UInt8(ascii: "\n") }
        member.lastEventID = String(decoding: line, as: UTF8.self)
      }
      return
    }
    let event = try SSEEvent(record: String(decoding: record, as: UTF8.self))
    member.lastEventID = event.id ?? member.lastEventID
    if event.name == "rig.subscriptions_set" { member.isGreeted = true }
    if event.name == "rig.events_lost" { member.lossesTold += 1 }
  }
}
