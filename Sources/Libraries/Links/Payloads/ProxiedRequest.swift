// What a connection worker tells a proxy worker of a request before its body comes, and how that is written in a frame:
//
//   scheme, 1 byte   host, text   port, 2 bytes   method, text   target, text   headers, list of names and values
//   form of the body, 1 byte   bytes of a counted body, 8 bytes   time-out, 4 bytes   key of its rate limit, text, if flag 2 is set
//
// Flag 1: it may become a tunnel. Flag 4: it is sent for the second time. A frame without flags is the one of releases that know none. Other flags are of later releases: what they
// bring stands behind all this (FieldCoding).

import Kit

/// Where a request is sent.
public struct ServiceOrigin: Hashable, Sendable {
  public var isTLS: Bool
  /// A name, or an address; IPv6 without brackets.
  public var host: String
  public var port: UInt16

  public init(isTLS: Bool, host: String, port: UInt16) {
    self.isTLS = isTLS
    self.host = host
    self.port = port
  }
}

/// What is known of a request's body before it comes.
public enum BodyForm: Equatable, Sendable {
  case none
  case counted(UInt64)
  case chunked
}

/// A request's head, as the service gets it.
public struct ProxiedRequest: Equatable, Sendable {
  /// Whether nothing comes behind the head, whether or not it says so.
  public var hasEmptyBody: Bool { body == .none || body == .counted(0) }
  /// Of the key of a rate limit.
  public static let mostKeyBytes = 1024

  public var origin: ServiceOrigin
  public var method: String
  /// Path and query, sent byte for byte.
  public var target: String
  /// Names and values, alternately; complete but for the framing of the body.
  public var headers: [String]
  public var body: BodyForm
  /// Milliseconds that the service has to begin its answer.
  public var timeoutMs: UInt32
  /// Whether the service may answer 101 and make a tunnel of the exchange; the headers ask for it.
  public var isUpgrade: Bool
  /// It was sent before: it isn't sent a third time.
  public var isSecondTry = false
  /// Whose tokens it takes if requests are limited; nil: none.
  public var limitKey: String?

  public init(
    origin: ServiceOrigin, method: String, target: String, headers: [String], body: BodyForm,
    timeoutMs: UInt32, isUpgrade: Bool = false, limitKey: String? = nil
  ) {
    self.origin = origin
    self.method = method
    self.target = target
    self.headers = headers
    self.body = body
    self.timeoutMs = timeoutMs
    self.isUpgrade = isUpgrade
    self.limitKey = limitKey
  }
}

// MARK: Wire format

extension ProxiedRequest {
  private enum Flag {
    static let upgrade: UInt32 = 1
    static let limitKey: UInt32 = 2
    static let secondTry: UInt32 = 4
  }

  var flags: UInt32 {
    (isUpgrade ? Flag.upgrade : 0) | (limitKey == nil ? 0 : Flag.limitKey)
      | (isSecondTry ? Flag.secondTry : 0)
  }

  func append(to fields: inout FieldWriter) {
    fields.append(UInt8(origin.isTLS ? 1 : 0))
    fields.append(origin.host)
    fields.append(origin.port)
    fields.append(method)
    fields.append(target)
    fields.append(headers)
    switch body {
    case .none: fields.append(UInt8(0))
    case .counted(let bytes):
      fields.append(UInt8(1))
      fields.append(bytes)
    case .chunked: fields.append(UInt8(2))
    }
    fields.append(timeoutMs)
    if let limitKey { fields.append(limitKey) }
  }

  /// - Throws: what is wrong with one that isn't as this format has it.
  init(_ fields: inout FieldReader, flags: UInt32) throws(RecordFault) {
    guard let scheme = fields.number(UInt8.self), let host = fields.text(),
      let port = fields.number(UInt16.self), let method = fields.text(),
      let target = fields.text(), let headers = fields.pairs(), let form = fields.number(UInt8.self)
    else { throw .malformed }
    guard scheme <= 1 else { throw .unknown(kind: "scheme \(scheme)") }
    let body: BodyForm
    switch form {
    case 0: body = .none
    case 1:
      guard let bytes = fields.number(UInt64.self) else { throw .malformed }
      body = .counted(bytes)
    case 2: body = .chunked
    default: throw .unknown(kind: "form \(form) of a body")
    }
    guard let timeoutMs = fields.number(UInt32.self) else { throw .malformed }
    var limitKey: String?
    if flags & Flag.limitKey != 0 {
      guard let key = fields.text(), key.utf8.count <= Self.mostKeyBytes else { throw .malformed }
      limitKey = key
    }
    self.init(
      origin: ServiceOrigin(isTLS: scheme == 1, host: host, port: port), method: method, target: target,
      headers: headers, body: body, timeoutMs: timeoutMs, isUpgrade: flags & Flag.upgrade != 0,
      limitKey: limitKey)
    isSecondTry = flags & Flag.secondTry != 0
  }
}
