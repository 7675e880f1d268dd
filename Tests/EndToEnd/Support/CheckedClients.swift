// Event streams and WebSockets in one thread that never come back: whoever is cut off stays so, and is counted. Every byte is read by a
// StreamReader, and what each client was sent is compared with what was published.
//
// Published events carry a row's name as their type and their number in it, from 0 on, as their id: each row has an order of its own.

import Glibc
import Testing

final class CheckedClients {
  /// How a client connects.
  struct Form {
    var transport: EventTransport
    var hasCursors = false
    var isDeflated = false
    var receiveBuffer: Int?

    static let sse = Form(transport: .sse)
    static let webSocket = Form(transport: .webSocket)
    static let resumable = Form(transport: .webSocket, hasCursors: true)
    static let deflated = Form(transport: .webSocket, isDeflated: true)
    /// One of each.
    static let all = [sse, webSocket, resumable, deflated]
  }

  private struct Member {
    let form: Form
    let wire: Wire
    var reader: StreamReader
    var token: String?
    var isGreeted = false
    /// Numbers by row, as they came.
    var received: [String: [Int]] = [:]
    /// Types of the gateway's own events behind the greeting.
    var told: [String] = []
    var heartbeats = 0
    var pongs: [[UInt8]] = []
    /// How it was ended; nil: it is open.
    var end: String?
    /// It isn't read from.
    var isIdle = false
  }

  private let gateway: Gateway
  private var members: [Member] = []
  /// The text of each event, by row and number: all clients have to be sent the same.
  private var texts: [String: [Int: String]] = [:]
  private var published: [String: Int] = [:]
  private static let lookEveryMilliseconds: CInt = 5

  init(_ gateway: Gateway) { self.gateway = gateway }

  // MARK: Clients

  /// Opens clients for events of `rows`, and waits until they are greeted. Returns the index of the first of them.
  ///
  /// - Parameter query: further parameters.
  @discardableResult
  func open(_ forms: [Form], _ rows: [String], query: String = "") throws -> Int {
    let first = members.count
    for form in forms { try begin(form, rows, query: query) }
    try pump("every client is greeted") { $0.members[first...].allSatisfy { $0.isGreeted || $0.end != nil } }
    if let end = members[first...].compactMap(\.end).first { throw TestFailure("not connected: \(end)") }
    return first
  }

  /// Opens a client, and doesn't wait for anything. Returns its index.
  @discardableResult
  func begin(_ form: Form, _ rows: [String], query: String = "") throws -> Int {
    let list = HTTP.encoded("[" + rows.map { #"{"eventType":"\#($0)"}"# }.joined(separator: ",") + "]")
    let reader = StreamReader(form.transport, hasCursors: form.hasCursors, isDeflated: form.isDeflated)
    members.append(
      Member(
        form: form, wire: try Wire(port: gateway.inboundPort, receiveBuffer: form.receiveBuffer),
        reader: reader))
    let path =
      "\(form.transport.path)?subscriptions=\(list)" + (form.hasCursors ? "&cursors=true" : "")
      + (query.isEmpty ? "" : "&\(query)")
    var fields = form.transport.headers
    if form.isDeflated {
      fields.append(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"))
    }
    try members[members.count - 1].wire.send(HTTPConnection.request("GET", path, headers: fields))
    return members.count - 1
  }

  var count: Int { members.count }
  /// The clients whose connection was ended, and how.
  var ended: [Int: String] {
    Dictionary(
      uniqueKeysWithValues: members.indices.compactMap { index in members[index].end.map { (index, $0) } })
  }
  func wire(_ index: Int) -> Wire { members[index].wire }
  func token(_ index: Int) throws -> String { try #require(members[index].token) }
  func received(_ index: Int, _ row: String) -> [Int] { members[index].received[row] ?? [] }
  /// Whether the client has so many events of the row, or doesn't follow it.
  func has(_ row: String, _ count: Int, at index: Int) -> Bool {
    members[index].received[row].map { $0.count >= count } ?? true
  }
  /// The clients that follow the row.
  func following(_ row: String) -> Set<Int> {
    Set(members.indices.filter { members[$0].received[row] != nil })
  }
  func isGreeted(_ index: Int) -> Bool { members[index].isGreeted }
  /// Nothing at all has come.
  func hasNothing(_ index: Int) -> Bool { members[index].reader.hasNothing }
  /// The client has been subscribed to the row by the test.
  func follow(_ row: String, at index: Int) { members[index].received[row] = [] }
  func told(_ index: Int) -> [String] { members[index].told }
  func heartbeats(_ index: Int) -> Int { members[index].heartbeats }
  func pongs(_ index: Int) -> [[UInt8]] { members[index].pongs }
  /// The client's side breaks the connection off: the peer is sent a RST. Its wire can't be used any more.
  func breakOff(_ index: Int) {
    var nobody = sockaddr()
    nobody.sa_family = sa_family_t(AF_UNSPEC)
    connect(members[index].wire.descriptor, &nobody, socklen_t(MemoryLayout<sockaddr>.size))
    members[index].end = "broken off"
  }

  /// The client reads nothing until it is woken.
  func idle(_ index: Int, _ isIdle: Bool = true) { members[index].isIdle = isIdle }

  // MARK: Events

  /// The row's next `count` events, which count as published from now on.
  func next(_ row: String, _ count: Int = 1, padding: Int = 0) -> [String] {
    let first = published[row, default: 0]
    published[row] = first + count
    let data = "\"\(String(repeating: "x", count: padding))\""
    return (first..<first + count).map { CloudEvent.json(row, id: String($0), data: data) }
  }

  /// Publishes the row's next event on the management port.
  func publish(_ row: String, padding: Int = 0) throws { try gateway.publish(next(row, padding: padding)[0]) }

  /// Publishes the row's next `count` events in one request, so that they come in one turn, or few.
  func publishTogether(_ row: String, _ count: Int, padding: Int = 0) throws {
    try publish(next(row, count, padding: padding))
  }

  /// Publishes events in one request.
  func publish(_ events: [String]) throws {
    let answer = try gateway.management(
      "POST", "/v3/messages", headers: [("content-type", "application/cloudevents-batch+json")],
      body: "[\(events.joined(separator: ","))]")
    guard answer.status == 202 else { throw TestFailure("not accepted: \(answer.status) \(answer.text)") }
  }

  // MARK: Reading

  /// Reads until `done`; throws when it isn't in time.
  func pump(_ what: String, within seconds: Double = 60, until done: (CheckedClients) throws -> Bool) throws {
    let deadline = Deadline(after: seconds)
    while try !done(self) {
      guard !deadline.hasPassed else { throw TestFailure("not within \(seconds) s: \(what); \(summary)") }
      try look()
      poll(nil, 0, Self.lookEveryMilliseconds)
    }
  }

  /// Reads until every open client that follows a row has its newest event and is at rest.
  func pumpToEnd() throws {
    try pump("every client has every event") { clients in
      clients.members.allSatisfy { member in
        member.end != nil
          || (member.reader.isAtRest
            && member.received.keys.allSatisfy {
              (member.received[$0]?.last ?? -1) >= clients.published[$0, default: 0] - 1
            })
      }
    }
  }

  /// Reads what is there.
  func look() throws {
    for index in members.indices where members[index].end == nil && !members[index].isIdle {
      try members[index].wire.receive(Deadline(after: 0))
      do {
        for sign in try members[index].reader.take(members[index].wire.received.takeAll()) {
          try note(sign, index)
        }
      } catch let malformed as StreamReader.Malformed {
        throw TestFailure("client \(index), a \(members[index].form): \(malformed)")
      }
      let wire = members[index].wire
      if wire.isAtEnd, members[index].end == nil {
        members[index].end =
          (wire.isReset ? "reset" : "closed") + (members[index].reader.isAtRest ? "" : " in a piece")
      }
    }
  }

  private func note(_ sign: StreamSign, _ index: Int) throws {
    switch sign {
    case .heartbeat: members[index].heartbeats += 1
    case .pong(let payload): members[index].pongs.append(payload)
    case .close(let code): members[index].end = "close \(code)"
    case .end: members[index].end = "last chunk"
    case .event(let type, let id, let text):
      guard !type.hasPrefix("rig.") else { return try note(own: type, text, index) }
      guard let number = Int(id) else { throw TestFailure("client \(index): an event of nobody: \(text)") }
      members[index].received[type, default: []].append(number)
      let first = texts[type, default: [:]][number] ?? text
      texts[type, default: [:]][number] = first
      guard text == first else {
        throw TestFailure("client \(index) was sent \(text) where others got \(first)")
      }
    }
  }

  private func note(own type: String, _ text: String, _ index: Int) throws {
    switch type {
    case "rig.connection.create" where members[index].token == nil:
      members[index].token = try JSON(parsing: text)["data"]?["connection_token"]?.string
    case "rig.subscriptions_set" where !members[index].isGreeted:
      guard let list = try JSON(parsing: text)["data"]?.array else {
        throw TestFailure("no subscriptions: \(text)")
      }
      for subscription in list { members[index].received[subscription["eventType"]?.string ?? ""] = [] }
      members[index].isGreeted = true
    case "rig.cursor": members[index].heartbeats += 1
    default: members[index].told.append(type)
    }
  }

  private var summary: String {
    "\(members.count { $0.isGreeted && $0.end == nil }) of \(members.count) connected, \(ended) ended, "
      + "\(members.count { !$0.reader.isAtRest }) in a piece, published \(published), the least of each row "
      + "\(published.keys.map { row in "\(row): \(members.compactMap { $0.received[row]?.count }.min() ?? 0)" })"
  }

  // MARK: Judging

  /// Every client is open, and has been sent every event of its rows once and in order, whole pieces, and nothing else but what `told`
  /// lets pass.
  ///
  /// - Parameters:
  ///   - but: clients that are judged by the test.
  ///   - told: types of the gateway's own events that the test provokes.
  func expectWhole(
    but others: Set<Int> = [], told: Set<String> = [], _ comment: String = "",
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    for index in members.indices where !others.contains(index) {
      let member = members[index]
      let name = "client \(index), \(member.form.transport), \(comment)"
      #expect(member.end == nil, "\(name): ended", sourceLocation: sourceLocation)
      #expect(member.reader.isAtRest, "\(name): stands in a piece", sourceLocation: sourceLocation)
      #expect(
        member.told.allSatisfy(told.contains), "\(name): told \(member.told)", sourceLocation: sourceLocation)
      for (row, numbers) in member.received {
        let all = Array(0..<published[row, default: 0])
        #expect(numbers == all, "\(name): row \(row)", sourceLocation: sourceLocation)
      }
    }
  }
}
