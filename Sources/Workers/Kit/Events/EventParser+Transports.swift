// Which form an event has, told by the headers that it came with: HTTP protocol binding §3, Kafka protocol binding §3.
//
//                                        HTTP                       Kafka
//   application/cloudevents+json         structured                 structured
//   application/cloudevents-batch+json   batch                      refused
//   ce-specversion / ce_specversion      binary                     binary
//   application/json                     structured                 structured, or plain and addressed
//   no content type                      refused                    structured, or plain and addressed

/// What one submission brought.
public struct EventSubmission: Equatable, Sendable {
  public let events: [PreparedEvent]
  /// It was a batch: the answer is a list.
  public let isBatched: Bool
}

extension EventParser {
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

  /// The attributes in headers that begin with `ce-`, decoded.
  private static func httpAttributes(
    _ headers: some Sequence<(name: String, value: String)>
  ) throws(EventError) -> [Attribute] {
    var attributes: [Attribute] = []
    for (name, value) in headers where name.utf8.count > 3 && name.lowercased().hasPrefix("ce-") {
      guard let decoded = decodedHeader(value) else {
        throw EventError("header \(name.lowercased().prefix(64)) is not UTF-8 when percent-decoded")
      }
      attributes.append(Attribute(name: String(name.lowercased().dropFirst(3)), value: decoded))
    }
    return attributes
  }

  /// The value of an attribute in a header of HTTP (HTTP binding §3.1.3.2): a text in double quotes is unquoted (RFC 9110 §5.6.4), then
  /// percent-decoded once; nil: that isn't UTF-8.
  static func decodedHeader(_ text: String) -> String? { percentDecoded(unquoted(text)) }

  /// What isn't one quoted string from its first to its last octet stays as it is.
  private static func unquoted(_ text: String) -> String {
    let quote = UInt8(ascii: "\"")
    let bytes = Array(text.utf8)
    guard bytes.count >= 2, bytes.first == quote, bytes.last == quote else { return text }
    var unquoted: [UInt8] = []
    var index = 1
    while index < bytes.count - 1 {
      guard bytes[index] != quote else { return text }
      if bytes[index] == UInt8(ascii: "\\") { index += 1 }
      guard index < bytes.count - 1 else { return text }
      unquoted.append(bytes[index])
      index += 1
    }
    return String(decoding: unquoted, as: UTF8.self)
  }

  /// nil: that isn't UTF-8.
  private static func percentDecoded(_ text: String) -> String? {
    guard text.utf8.contains(UInt8(ascii: "%")) else { return text }
    return String(validating: HTTPOctets.percentDecoded(text.utf8).octets, as: UTF8.self)
  }
}
