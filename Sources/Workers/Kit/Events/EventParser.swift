// From the bytes of an event, in whatever form it came, to a PreparedEvent: contract §4 and §5. Parsed once, here, by the
// worker through which it enters. Pure: bytes in, event or reason out.
//
// This file: JSON (structured mode) and what all forms share. EventParser+Binary: attributes in headers.
// EventParser+Transports: which form an HTTP request or a Kafka record has.

import Settings

/// Parses events. One thread; keep one per worker.
public final class EventParser {
  /// The extension attribute that tells a WebSocket's client where it stands (contract §2.2).
  private static let cursorAttribute = "rigcursor"

  let maximumBytes: Int
  /// Empty: nothing addresses an event.
  let userField: String
  private let extractors: [String: (names: [String], pointers: PointerTree)]
  var trace = TraceSource()

  public init(settings: Settings) {
    maximumBytes = settings.maxEventBytes
    userField = settings.kafkaUserField
    extractors = settings.extractors.byType.mapValues { fields in
      let sorted = fields.sorted { $0.key < $1.key }
      return (sorted.map(\.key), PointerTree(sorted.map(\.value.eventPointer)))
    }
  }

  /// One event in structured mode: a JSON object with its attributes.
  ///
  /// - Parameters:
  ///   - trace: what came with the request; it goes into the event unless the event has its own.
  ///   - allowsPlain: whether an addressed object that is no CloudEvent is accepted (contract §4.2).
  public func structured(
    _ bytes: UnsafeRawBufferPointer, trace: TraceContext, acceptedAtNs: UInt64, allowsPlain: Bool = false
  ) throws(EventError) -> PreparedEvent {
    guard bytes.count <= maximumBytes else { throw tooLarge(bytes.count) }
    let members = try MemberTable(bytes)
    return try event(members, bytes, trace, acceptedAtNs, allowsPlain: allowsPlain)
  }

  /// A batch: a JSON list of events.
  public func batch(
    _ bytes: UnsafeRawBufferPointer, trace: TraceContext, acceptedAtNs: UInt64
  ) throws(EventError) -> [PreparedEvent] {
    guard bytes.count <= maximumBytes else { throw tooLarge(bytes.count) }
    var ranges: [Range<Int>] = []
    do throws(JSONError) {
      try JSONScanner.requireUTF8(bytes)
      var scanner = JSONScanner(bytes)
      try scanner.forEachElement { (scanner, _) throws(JSONError) in
        ranges.append(try scanner.skipValue(depth: 1))
      }
      try scanner.requireEnd()
    } catch {
      throw EventError("body: \(error), expected a JSON list of events")
    }
    guard ranges.count <= EventLimit.batch else {
      throw EventError(status: 413, "\(ranges.count) events in a batch, expected at most \(EventLimit.batch)")
    }
    var events: [PreparedEvent] = []
    events.reserveCapacity(ranges.count)
    for (index, range) in ranges.enumerated() {
      do throws(EventError) {
        let members = try MemberTable(validated: bytes, in: range)
        events.append(try event(members, bytes, trace, acceptedAtNs, allowsPlain: false))
      } catch {
        throw EventError(status: error.status, "event \(index) of the batch: \(error.detail)")
      }
    }
    return events
  }

  /// An event that the gateway itself makes, in structured mode: the only way to a type that begins with `rig.`. It is addressed to
  /// nobody, whatever its members are called.
  ///
  /// - Parameter type: as the event says it; with it the event goes out if the rest of it isn't as the configuration wants events.
  public func own(_ type: String, id: String, _ json: [UInt8], acceptedAtNs: UInt64) -> PreparedEvent {
    // Through the parser, so that extractors find their fields in it.
    let parsed = json.withUnsafeBytes { bytes in
      try? unreserved(
        MemberTable(bytes), bytes, TraceContext(traceparent: ""), acceptedAtNs, allowsPlain: false)
    }
    var event =
      parsed ?? PreparedEvent(type: type, source: "rig", id: id, json: json, acceptedAtNs: acceptedAtNs)
    event.users = []
    return event
  }

  /// Refuses events that are addressed to users (`SUBMISSION_MAY_ADDRESS`).
  ///
  /// - Throws: 403 for the first one.
  public func requireUnaddressed(_ events: [PreparedEvent]) throws(EventError) {
    guard events.contains(where: { !$0.users.isEmpty }) else { return }
    throw EventError(
      status: 403, "\(userField) addresses users, which is not allowed here (SUBMISSION_MAY_ADDRESS is off)")
  }

  func tooLarge(_ count: Int) -> EventError {
    EventError(status: 413, "event of \(count) bytes, expected at most \(maximumBytes)")
  }

  // MARK: One object

  func event(
    _ members: MemberTable, _ bytes: UnsafeRawBufferPointer, _ trace: TraceContext, _ acceptedAtNs: UInt64,
    allowsPlain: Bool
  ) throws(EventError) -> PreparedEvent {
    try ReservedTypes.refuse(in: members)
    return try unreserved(members, bytes, trace, acceptedAtNs, allowsPlain: allowsPlain)
  }

  /// The event, whatever its type.
  private func unreserved(
    _ members: MemberTable, _ bytes: UnsafeRawBufferPointer, _ trace: TraceContext, _ acceptedAtNs: UInt64,
    allowsPlain: Bool
  ) throws(EventError) -> PreparedEvent {
    let users = try users(members)
    guard let version = try version(members) else {
      guard allowsPlain else { throw EventError("specversion is missing, \(SpecVersion.expected)") }
      guard !users.isEmpty else { throw neitherEventNorAddressed }
      return PreparedEvent(
        type: "message", json: Self.line(of: members, bytes), users: users, isPlainMessage: true,
        trace: trace,
        acceptedAtNs: acceptedAtNs)
    }
    let type = try required(version.typeName, members)
    let source = try required(version.sourceName, members)
    let id = try required(version.idName, members)
    if version == .v10 { try Self.requireOneKindOfData(members) }
    var json = Self.line(of: members, bytes)
    let ownTrace = eventTrace(members)
    if !members.has("traceparent") { Self.insert(trace, withState: !members.has("tracestate"), into: &json) }
    return PreparedEvent(
      type: type, source: source, id: id, json: json, users: users, fields: fields(of: type, members),
      expiresAtUnixMs: try expiry(members), trace: ownTrace ?? trace, acceptedAtNs: acceptedAtNs)
  }

  private func version(_ members: MemberTable) throws(EventError) -> SpecVersion? {
    if let text = try members.string("specversion") {
      guard let version = SpecVersion(rawValue: text), version != .v01 else {
        throw EventError("specversion is '\(text.prefix(64))', \(SpecVersion.expected)")
      }
      return version
    }
    guard let text = try members.string("cloudEventsVersion") else { return nil }
    guard text == SpecVersion.v01.rawValue else {
      throw EventError("cloudEventsVersion is '\(text.prefix(64))', expected 0.1")
    }
    return .v01
  }

  private func required(_ name: String, _ members: MemberTable) throws(EventError) -> String {
    guard let text = try members.string(name) else {
      throw EventError("\(name) is missing, expected a non-empty string")
    }
    return try AttributeRule.check(text, name: name)
  }

  private var neitherEventNorAddressed: EventError {
    EventError(
      userField.isEmpty
        ? "specversion is missing, \(SpecVersion.expected)"
        : "neither a CloudEvent (specversion is missing) nor addressed by \(userField)")
  }

  /// JSON event format §3.1.1: bytes in base64, or any other value, not both.
  private static func requireOneKindOfData(_ members: MemberTable) throws(EventError) {
    guard members.has("data_base64") else { return }
    guard !members.has("data") else {
      throw EventError("data stands beside data_base64, expected one of them")
    }
    _ = try members.string("data_base64")
  }

  private func users(_ members: MemberTable) throws(EventError) -> [String] {
    guard !userField.isEmpty else { return [] }
    let names = try members.namesOfUsers(userField)
    guard names.count <= EventLimit.users else {
      throw EventError("\(userField) lists \(names.count) users, expected at most \(EventLimit.users)")
    }
    for name in names { _ = try AttributeRule.check(user: name, name: userField) }
    return names
  }

  private func expiry(_ members: MemberTable) throws(EventError) -> Int64? {
    guard let text = try members.string("rigexpires") else { return nil }
    guard let moment = Timestamp.unixMilliseconds(text) else {
      throw EventError(
        "rigexpires is '\(text.prefix(64))', expected a time such as 2026-01-31T12:00:00Z (RFC 3339)")
    }
    return moment
  }

  /// The event's own trace context, if it has a valid one.
  private func eventTrace(_ members: MemberTable) -> TraceContext? {
    guard let parent = try? members.string("traceparent"), TraceContext.isValid(parent) else { return nil }
    return TraceContext(traceparent: parent, boundedTracestate: try? members.string("tracestate"))
  }

  private func fields(of type: String, _ members: MemberTable) -> [PreparedEvent.Field] {
    guard let wanted = extractors[type] else { return [] }
    return zip(wanted.names, members.scalars(at: wanted.pointers)).compactMap { name, value in
      value.map { PreparedEvent.Field(name: name, value: $0) }
    }
  }

  // MARK: Text

  /// The object as it goes out, but for where somebody else's client stood: each client is told its own place.
  private static func line(of members: MemberTable, _ bytes: UnsafeRawBufferPointer) -> [UInt8] {
    guard members.has(cursorAttribute) else { return line(bytes, members.object) }
    return members.object(without: cursorAttribute).withUnsafeBytes { line($0, 0..<$0.count) }
  }

  /// The object on one line. Inside of strings there are no line breaks (RFC 8259 §7): those between tokens mean nothing.
  static func line(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> [UInt8] {
    let object = UnsafeRawBufferPointer(rebasing: bytes[range])
    var line: [UInt8] = []
    line.reserveCapacity(object.count + 128)
    line.append(contentsOf: object)
    if object.contains(where: { $0 == 0x0A || $0 == 0x0D }) { line.removeAll { $0 == 0x0A || $0 == 0x0D } }
    return line
  }

  /// Adds the trace context as extension attributes, before the brace that ends the object, which has other members.
  private static func insert(_ trace: TraceContext, withState: Bool, into json: inout [UInt8]) {
    guard !trace.traceparent.isEmpty else { return }
    json.removeLast()
    json.append(contentsOf: #","traceparent":"#.utf8)
    JSONText.appendString(trace.traceparent, to: &json)
    if withState, let state = trace.tracestate {
      json.append(contentsOf: #","tracestate":"#.utf8)
      JSONText.appendString(state, to: &json)
    }
    json.append(UInt8(ascii: "}"))
  }
}
