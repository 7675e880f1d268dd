// A Server-Sent Events client that shows everything that came over the line, comments and `retry` included.

/// One record of the stream.
struct SSEEvent: Equatable {
  var id: String?
  var name: String?
  var data: String?
  var comment: String?
  var retry: String?

  /// The data as JSON.
  var json: JSON {
    get throws { try JSON(parsing: data ?? "") }
  }

  /// Parses one record (without the empty line that ends it).
  init(record: String) throws {
    for line in record.split(separator: "\n", omittingEmptySubsequences: false) {
      let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      var value = parts.count == 2 ? parts[1] : ""
      if value.first == " " { value = value.dropFirst() }
      switch parts[0] {
      case "id": id = String(value)
      case "event": name = String(value)
      case "data": data = (data.map { $0 + "\n" } ?? "") + value
      case "retry": retry = String(value)
      case "": comment = String(value)
      default: throw TestFailure("not a field of an event stream: \(line)")
      }
    }
  }
}

final class SSEClient {
  let http: HTTPConnection
  let head: HTTPHead
  /// From the greeting; empty until `greet` has read it.
  private(set) var token = ""
  /// Cursor of the last event that had one.
  private(set) var lastEventID: String?
  private var decoder: BodyDecoder
  private var body = ByteQueue()

  var wire: Wire { http.wire }

  /// Opens a stream and reads the answer's head, whatever its status.
  init(
    _ gateway: Gateway, query: String, headers: [(String, String)] = [], receiveBuffer: Int? = nil,
    tls: TLSEnd? = nil
  ) throws {
    http = try HTTPConnection(wire: gateway.wire(receiveBuffer, tls))
    let path = "/_rig/v1/connection/sse" + (query.isEmpty ? "" : "?\(query)")
    try http.wire.send(HTTPConnection.request("GET", path, headers: headers))
    head = try http.head()
    decoder = BodyDecoder(head)
  }

  /// Opens a stream with `subscriptions` and reads its greeting.
  static func open(
    _ gateway: Gateway, _ subscriptions: String, query: String = "", lastEventID: String? = nil,
    receiveBuffer: Int? = nil, tls: TLSEnd? = nil
  ) throws -> SSEClient {
    let parameters = "subscriptions=\(HTTP.encoded(subscriptions))" + (query.isEmpty ? "" : "&\(query)")
    let client = try SSEClient(
      gateway, query: parameters, headers: lastEventID.map { [("last-event-id", $0)] } ?? [],
      receiveBuffer: receiveBuffer, tls: tls)
    guard client.head.status == 200 else { throw TestFailure("no stream: \(client.head.status)") }
    try client.greet()
    return client
  }

  /// Reads the two greeting events.
  @discardableResult
  func greet() throws -> (created: JSON, subscriptions: JSON) {
    let created = try event(named: "rig.connection.create").json
    token = created["data"]?["connection_token"]?.string ?? ""
    let subscriptions = try event(named: "rig.subscriptions_set").json
    return (created, subscriptions)
  }

  /// The next record, whatever it is.
  func record(_ deadline: Deadline = Deadline()) throws -> SSEEvent {
    while true {
      try decoder.decode(&wire.received, into: &body)
      if let length = body.distance(to: "\n\n") {
        let bytes = body.take(length + 2).dropLast(2)
        let event = try SSEEvent(record: String(decoding: bytes, as: UTF8.self))
        if let id = event.id { lastEventID = id }
        return event
      }
      guard try wire.receive(deadline) else {
        throw TestFailure(
          wire.isAtEnd ? "the stream has ended" : "no event came; so far: \(body.text.prefix(300))")
      }
    }
  }

  /// The next event; comments and `retry` are skipped.
  func event(_ deadline: Deadline = Deadline()) throws -> SSEEvent {
    while true {
      let record = try record(deadline)
      if record.name != nil || record.data != nil { return record }
    }
  }

  /// The next event, which must be called `name`.
  @discardableResult
  func event(named name: String) throws -> SSEEvent {
    let event = try event()
    guard event.name == name else {
      throw TestFailure("expected \(name), got \(event.name ?? "-"): \(event.data ?? "")")
    }
    return event
  }

  /// Reads events until one is called `name`, and returns those before it.
  func events(until name: String) throws -> [SSEEvent] {
    var before: [SSEEvent] = []
    while true {
      let event = try event()
      if event.name == name { return before }
      before.append(event)
    }
  }

  /// Waits for the gateway to end the stream.
  func awaitEnd() throws {
    _ = try wire.receiveToEnd()
  }
}
