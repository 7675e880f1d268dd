// Event streams and WebSockets in one thread that come back with their cursor whenever they are cut off, and remember every numbered
// event that they were sent.

import Glibc

final class ResumingClients {
  private struct Member {
    let transport: EventTransport
    var wire: Wire
    var head: HTTPHead?
    var decoder: BodyDecoder?
    var body = ByteQueue()
    var isGreeted = false
    var cursor: String?
    var connections = 1
    /// Numbers by the type of the events, as they came.
    var received: [String: [Int]] = [:]
    var lossesTold = 0
  }

  private let gateway: Gateway
  private let subscriptions: String
  private var members: [Member] = []
  private static let lookEveryMilliseconds: CInt = 5

  init(_ gateway: Gateway, streams: Int, webSockets: Int, types: [String]) throws {
    self.gateway = gateway
    subscriptions = HTTP.encoded("[" + types.map { #"{"eventType":"\#($0)"}"# }.joined(separator: ",") + "]")
    for number in 0..<streams + webSockets {
      let transport: EventTransport = number < streams ? .sse : .webSocket
      members.append(Member(transport: transport, wire: try Wire(port: gateway.inboundPort)))
      try ask(number)
    }
    try pump("every client is greeted") { $0.members.allSatisfy(\.isGreeted) }
  }

  /// How often a connection was opened.
  var connections: Int { members.reduce(0) { $0 + $1.connections } }

  /// What each client has received of a type, in its order.
  func received(_ type: String) -> [[Int]] { members.map { $0.received[type] ?? [] } }

  /// How often each client was told that events are missing.
  var lossesTold: [Int] { members.map(\.lossesTold) }

  /// Whether every client has event `number` of each type.
  func haveAll(through numbers: [String: Int]) -> Bool {
    members.allSatisfy { member in
      numbers.allSatisfy { type, number in member.received[type]?.last.map { $0 >= number } ?? (number < 0) }
    }
  }

  /// Reads until `done`; throws when it isn't in time.
  func pump(
    _ what: String, within seconds: Double = 2 * Deadline.patience,
    until done: (ResumingClients) throws -> Bool
  ) throws {
    let deadline = Deadline(after: seconds)
    while try !done(self) {
      guard !deadline.hasPassed else { throw TestFailure("not within \(seconds) s: \(what); \(summary)") }
      try look()
      poll(nil, 0, Self.lookEveryMilliseconds)
    }
  }

  /// Reads what is there.
  func look() throws {
    for index in members.indices {
      try members[index].wire.receive(Deadline(after: 0))
      if try Self.understand(&members[index]) { try comeBack(index) }
    }
  }

  private var summary: String {
    let last = members.map { member in member.received.mapValues { $0.last ?? -1 }.sorted { $0.key < $1.key }
    }
    return "\(members.count(where: \.isGreeted)) of \(members.count) connected; they are at \(last)"
  }

  private func comeBack(_ index: Int) throws {
    members[index].wire = try Wire(port: gateway.inboundPort)
    members[index].head = nil
    members[index].decoder = nil
    members[index].body = ByteQueue()
    members[index].isGreeted = false
    members[index].connections += 1
    try ask(index)
  }

  private func ask(_ index: Int) throws {
    let member = members[index]
    let query = "\(member.transport.path)?subscriptions=\(subscriptions)"
    let cursor = member.cursor.map { [("last-event-id", $0)] } ?? []
    let request =
      member.transport == .sse
      ? HTTPConnection.request("GET", query, headers: cursor)
      : HTTPConnection.request(
        "GET", "\(query)&lastEventId=\(HTTP.encoded(member.cursor ?? ""))", headers: WebSocketClient.upgrade)
    try member.wire.send(request)
  }

  /// Whether the connection is over.
  private static func understand(_ member: inout Member) throws -> Bool {
    if member.head == nil, let length = member.wire.received.distance(to: "\r\n\r\n") {
      let head = try HTTPHead(String(decoding: member.wire.received.take(length + 4), as: UTF8.self))
      guard head.status == 200 || head.status == 101 else { return true }
      member.decoder = BodyDecoder(head)
      member.head = head
    }
    guard member.head != nil else { return member.wire.isAtEnd }
    let isClosed = member.transport == .sse ? try readBlocks(&member) : try readFrames(&member)
    return isClosed || member.wire.isAtEnd
  }

  private static func readBlocks(_ member: inout Member) throws -> Bool {
    try member.decoder?.decode(&member.wire.received, into: &member.body)
    while let length = member.body.distance(to: "\n\n") {
      let block = String(decoding: member.body.take(length + 2).dropLast(2), as: UTF8.self)
      let event = try SSEEvent(record: block)
      member.cursor = event.id ?? member.cursor
      if event.data != nil { note(try event.json, &member) }
    }
    return member.decoder?.isComplete ?? false
  }

  private static func readFrames(_ member: inout Member) throws -> Bool {
    while let frame = try WebSocketFrame.take(from: &member.wire.received) {
      switch frame.opcode {
      case WebSocketFrame.Opcode.text: note(try JSON(parsing: frame.payload), &member)
      case WebSocketFrame.Opcode.ping:
        try member.wire.send(WebSocketFrame(WebSocketFrame.Opcode.pong, frame.payload).encoded())
      default: return true
      }
    }
    return false
  }

  private static func note(_ event: JSON, _ member: inout Member) {
    member.cursor = event["rigcursor"]?.string ?? member.cursor
    let type = event["type"]?.string ?? ""
    if type == "rig.subscriptions_set" { member.isGreeted = true }
    if type == "rig.events_lost" { member.lossesTold += 1 }
    guard !type.hasPrefix("rig."), let number = event["id"]?.string.flatMap(Int.init) else { return }
    member.received[type, default: []].append(number)
  }
}
