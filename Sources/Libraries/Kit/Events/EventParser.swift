// From the bytes of an event, in whatever form it came, to a PreparedEvent: contract §4 and §5. Parsed once, here, by the
// worker through which it enters. Pure: bytes in, event or reason out.

import FoundationEssentials
import Settings

/// Parses events. One thread; keep one per worker.
public final class EventParser {
  /// The extension attribute that tells a WebSocket's client where it stands (contract §2.2).
  private static let cursorAttribute = "rigcursor"

  private let maximumBytes: Int
  /// Empty: nothing addresses an event.
  private let userField: String
  private let extractors: [String: (names: [String], pointers: PointerTree)]
  private var trace = TraceSource()

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

  private func tooLarge(_ count: Int) -> EventError {
    EventError(status: 413, "event of \(count) bytes, expected at most \(maximumBytes)")
  }

  // MARK: One object

  private func event(
    _ members: MemberTable, _ bytes: UnsafeRawBufferPointer, _ trace: TraceContext, _ acceptedAtNs: UInt64,
    allowsPlain: Bool
  ) throws(EventError) -> PreparedEvent {
    try ReservedTypes.refuse(in: members)
    return try unreserved(members, bytes, trace, acceptedAtNs, allowsPlain: allowsPlain)
  }

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
  private static func line(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> [UInt8] {
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

  // MARK: Binary

  // The attributes are headers, the body is the data. The event is put together as structured JSON, and then
  // parsed like one that came so: what is demanded of attributes is demanded in one place.
  //
  //   data is JSON         "data": as it came               by its content type, or without one by itself
  //   data is other text   "data": a JSON string
  //   other bytes          "data_base64": …  (1.0);  "data": …, "datacontentencoding": "base64"  (before)

  /// An attribute of an event in binary mode, without the prefix of its header.
  private struct Attribute {
    let name: String
    let value: String
  }

  /// One event in binary mode.
  ///
  /// - Parameter attributes: names in lower case, as headers have them.
  private func binary(
    _ attributes: [Attribute], contentType: String?, data: UnsafeRawBufferPointer, trace: TraceContext,
    acceptedAtNs: UInt64
  ) throws(EventError) -> PreparedEvent {
    guard data.count <= maximumBytes else { throw tooLarge(data.count) }
    var seen = Set<String>()
    var version = SpecVersion.v10
    var json = Array("{".utf8)
    for attribute in attributes {
      guard Self.isAttributeName(attribute.name) else {
        throw EventError(
          "'\(attribute.name.prefix(64))' is no attribute name, expected lower-case letters and digits")
      }
      guard seen.insert(attribute.name).inserted else {
        throw EventError("\(attribute.name) is given twice, expected once")
      }
      guard !["data", "data_base64", "datacontenttype"].contains(attribute.name) else {
        throw EventError(
          "\(attribute.name) is no header in binary mode: data is the body, its type is content-type")
      }
      if attribute.name == "specversion" || attribute.name == "cloudeventsversion" {
        version = SpecVersion(rawValue: attribute.value) ?? version
      }
      if json.count > 1 { json.append(UInt8(ascii: ",")) }
      JSONText.appendString(name(ofAttribute: attribute.name), to: &json)
      json.append(UInt8(ascii: ":"))
      JSONText.appendString(attribute.value, to: &json)
    }
    if let contentType { Self.append(contentType: contentType, version, to: &json) }
    try append(data: data, contentType: contentType, version, to: &json)
    json.append(UInt8(ascii: "}"))
    // Array's closures don't keep the type of what they throw.
    let parsed = json.withUnsafeBytes { bytes in
      Result { () throws(EventError) in
        try event(MemberTable(bytes), bytes, trace, acceptedAtNs, allowsPlain: false)
      }
    }
    return try parsed.get()
  }

  private static func append(contentType: String, _ version: SpecVersion, to json: inout [UInt8]) {
    if json.count > 1 { json.append(UInt8(ascii: ",")) }
    JSONText.appendString(version == .v01 || version == .v02 ? "contenttype" : "datacontenttype", to: &json)
    json.append(UInt8(ascii: ":"))
    JSONText.appendString(contentType, to: &json)
  }

  private func append(
    data: UnsafeRawBufferPointer, contentType: String?, _ version: SpecVersion, to json: inout [UInt8]
  ) throws(EventError) {
    guard !data.isEmpty else { return }
    let range =
      if let contentType { MediaType(contentType).isJSON ? try jsonData(data) : nil } else {
        try? jsonData(data)
      }
    if let range {
      json.append(contentsOf: #","data":"#.utf8)
      json.append(contentsOf: Self.line(data, range))
    } else if (try? JSONScanner.requireUTF8(data)) != nil {
      json.append(contentsOf: #","data":"#.utf8)
      JSONText.appendString(utf8: data, to: &json)
    } else {
      let encoded = Data(data).base64EncodedString()
      let name = version == .v10 ? #","data_base64":""# : #","datacontentencoding":"base64","data":""#
      json.append(contentsOf: name.utf8)
      json.append(contentsOf: encoded.utf8)
      json.append(UInt8(ascii: "\""))
    }
  }

  private func jsonData(_ data: UnsafeRawBufferPointer) throws(EventError) -> Range<Int> {
    do throws(JSONError) {
      try JSONScanner.requireUTF8(data)
      var scanner = JSONScanner(data)
      let range = try scanner.skipValue(depth: 1)
      try scanner.requireEnd()
      return range
    } catch {
      throw EventError("body: \(error), expected JSON as content-type says")
    }
  }

  /// Headers don't keep upper case, which names of version 0.1 have, and the configured name of the users may have:
  /// an event that is addressed in a header must not pass for one that isn't.
  private func name(ofAttribute lowercase: String) -> String {
    switch lowercase {
    case userField.lowercased(): userField
    case "cloudeventsversion": "cloudEventsVersion"
    case "eventtype": "eventType"
    case "eventtypeversion": "eventTypeVersion"
    case "eventid": "eventID"
    case "eventtime": "eventTime"
    default: lowercase
    }
  }

  /// CloudEvents asks for letters and digits; `_` and `-` are met in old extensions.
  private static func isAttributeName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= EventLimit.attributeBytes
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"),
          UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }

  // MARK: Transports

  // Which form an event has, told by the headers that it came with: HTTP protocol binding §3, Kafka protocol binding §3.
  //
  //                                        HTTP                       Kafka
  //   application/cloudevents+json         structured                 structured
  //   application/cloudevents-batch+json   batch                      refused
  //   ce-specversion / ce_specversion      binary                     binary
  //   application/json                     structured                 structured, or plain and addressed
  //   no content type                      refused                    structured, or plain and addressed

  private static let structuredType = "application/cloudevents+json"
  private static let batchType = "application/cloudevents-batch+json"

  /// A submission by HTTP.
  ///
  /// - Parameters:
  ///   - contentType: the header's value; nil if there is none.
  ///   - headers: all of the request, names in any case.
  ///   - trace: the request's.
  public func submission(
    contentType: String?, headers: some Sequence<(name: String, value: String)>, body: UnsafeRawBufferPointer,
    trace: TraceContext, acceptedAtNs: UInt64
  ) throws(EventError) -> EventSubmission {
    try HeaderFields.requireNoContentCoding(headers)
    let type = contentType.map { MediaType($0).text }
    switch type {
    case Self.structuredType:
      return EventSubmission(
        events: [try structured(body, trace: trace, acceptedAtNs: acceptedAtNs)], isBatched: false)
    case Self.batchType:
      return EventSubmission(
        events: try batch(body, trace: trace, acceptedAtNs: acceptedAtNs), isBatched: true)
    default:
      break
    }
    if let type, type.hasPrefix("application/cloudevents") {
      throw unsupported(type)
    }
    let attributes = try Self.httpAttributes(headers)
    if attributes.contains(where: { $0.name == "specversion" || $0.name == "cloudeventsversion" }) {
      let event = try binary(
        attributes, contentType: contentType, data: body, trace: trace, acceptedAtNs: acceptedAtNs)
      return EventSubmission(events: [event], isBatched: false)
    }
    guard let type, MediaType(type).isJSON else { throw unsupported(type) }
    return EventSubmission(
      events: [try structured(body, trace: trace, acceptedAtNs: acceptedAtNs)], isBatched: false)
  }

  /// A record from Kafka.
  ///
  /// - Parameters:
  ///   - value: nil: a tombstone, which in binary mode is an event without data.
  ///   - headers: names in any case.
  public func record(
    _ value: UnsafeRawBufferPointer?, headers: [(name: String, value: [UInt8])], origin: EventOrigin,
    acceptedAtNs: UInt64
  ) throws(EventError) -> PreparedEvent {
    var attributes: [Attribute] = []
    var contentType: String?
    var traceparent: String?
    var traceparents = 0
    var tracestate: String?
    for header in headers {
      let name = header.name.lowercased()
      guard name.hasPrefix("ce_") || ["content-type", "traceparent", "tracestate"].contains(name) else {
        continue
      }
      guard let text = String(validating: header.value, as: UTF8.self) else {
        throw EventError("header \(name.prefix(64)) is not UTF-8")
      }
      switch name {
      case "content-type": contentType = text
      case "traceparent":
        traceparent = text
        traceparents += 1
      case "tracestate": tracestate = text
      default: attributes.append(Attribute(name: String(name.dropFirst(3)), value: text))
      }
    }
    let context = trace.context(traceparent: traceparent, traceparents: traceparents, tracestate: tracestate)
    let type = contentType.map { MediaType($0) }
    if let type, type.text.hasPrefix("application/cloudevents"), type.text != Self.structuredType {
      throw EventError(
        status: 415,
        "header content-type is '\(type.text.prefix(64))', expected \(Self.structuredType) or ce_ headers")
    }
    var event: PreparedEvent
    if type?.text != Self.structuredType, attributes.contains(where: { $0.name == "specversion" }) {
      event = try binary(
        attributes, contentType: contentType, data: value ?? UnsafeRawBufferPointer(start: nil, count: 0),
        trace: context, acceptedAtNs: acceptedAtNs)
    } else {
      guard let value else { throw EventError("the record has no value (a tombstone), expected an event") }
      guard type == nil || type?.text == Self.structuredType || type?.text == "application/json" else {
        throw EventError(
          status: 415,
          "header content-type is '\((contentType ?? "").prefix(64))', expected \(Self.structuredType) or ce_ headers"
        )
      }
      event = try structured(value, trace: context, acceptedAtNs: acceptedAtNs, allowsPlain: true)
    }
    event.origin = origin
    return event
  }

  private func unsupported(_ type: String?) -> EventError {
    let found = type.map { "header content-type is '\($0.prefix(64))'" } ?? "header content-type is missing"
    return EventError(
      status: 415,
      "\(found), expected \(Self.structuredType), \(Self.batchType), application/json, or any type with ce- headers"
    )
  }

  private static func httpAttributes(
    _ headers: some Sequence<(name: String, value: String)>
  ) throws(EventError) -> [Attribute] {
    var attributes: [Attribute] = []
    for (name, value) in headers where name.utf8.count > 3 && name.lowercased().hasPrefix("ce-") {
      guard let decoded = AttributeRule.decodedHeader(value) else {
        throw EventError("header \(name.lowercased().prefix(64)) is not UTF-8 when percent-decoded")
      }
      attributes.append(Attribute(name: String(name.lowercased().dropFirst(3)), value: decoded))
    }
    return attributes
  }
}

/// What one submission brought.
public struct EventSubmission: Equatable, Sendable {
  public let events: [PreparedEvent]
  /// It was a batch: the answer is a list.
  public let isBatched: Bool
}
