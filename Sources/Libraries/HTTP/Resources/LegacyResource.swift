// RIG 1's paths about sessions, which both ports have (contract §7).
//
//   GET HEAD  /rg/sessions             who is online
//   GET HEAD  /rg/sessions/:id         with which devices
//   DELETE    /rg/connections/:jti     ends the session

import Kit
import Links
import NIOCore
import NIOHTTP1

/// A resource of RIG 1. Names are still percent-encoded.
public enum LegacyResource: Equatable, Sendable {
  case sessions
  case userSessions(Substring)
  case connection(Substring)

  private static let prefix = "/rg/"

  /// nil: the path is none of these.
  public init?(path: String) {
    guard path.hasPrefix(Self.prefix) else { return nil }
    let parts = path.dropFirst(Self.prefix.count).split(separator: "/", omittingEmptySubsequences: false)
    let name = parts.count == 2 ? parts[1] : nil
    guard parts.count == 1 || name?.isEmpty == false else { return nil }
    switch (parts[0], name) {
    case ("sessions", nil): self = .sessions
    case ("sessions", let name?): self = .userSessions(name)
    case ("connections", let name?): self = .connection(name)
    default: return nil
    }
  }

  /// Every path, with names in braces.
  public static let templates = ["/rg/sessions", "/rg/sessions/{user}", "/rg/connections/{session}"]

  public var methods: [HTTPMethod] {
    switch self {
    case .sessions, .userSessions: [.GET, .HEAD]
    case .connection: [.DELETE]
    }
  }

  /// The action that a token must allow, by RIG 1's name.
  public var action: String {
    switch self {
    case .sessions: "getSessions"
    case .userSessions: "getSessionConnections"
    case .connection: "deleteConnection"
    }
  }

  /// What whoever lacks the action is told.
  public var refusal: String { "the token's claim scopes.rg.actions doesn't contain \(action)" }

  /// What is asked for.
  ///
  /// - Parameter validUntil: when the token of whoever orders it ends, in seconds since 1970; nil: there is none, or it doesn't end.
  /// - Throws: 400 for a name that nobody can have.
  public func question(validUntil: Double?) throws(EventError) -> SessionQuestion {
    switch self {
    case .sessions: return .users
    case .userSessions(let segment): return .devices(user: try Self.name(segment))
    case .connection(let segment):
      let until = UInt32(exactly: (validUntil ?? 0).rounded(.up)) ?? .max
      return .end(session: try Self.name(segment), atLeastUntil: until)
    }
  }

  private static func name(_ segment: Substring) throws(EventError) -> String {
    guard let name = PathSegment.decode(segment) else {
      throw EventError("the path's last segment is no percent-encoded UTF-8")
    }
    guard name.utf8.count <= SessionQuestion.maximumNameBytes else {
      throw EventError(
        "the path's last segment has \(name.utf8.count) bytes, expected at most \(SessionQuestion.maximumNameBytes)"
      )
    }
    return name
  }
}

extension SessionAnswer {
  /// An answer on its way to another worker.
  public init(_ response: HTTPResponse) {
    self.init(
      status: UInt16(clamping: response.status.code),
      fields: response.headers.wireBlock, body: Array(response.body.readableBytesView))
  }
}

extension HTTPResponse {
  /// An answer that another worker has given.
  public init(_ answer: SessionAnswer) {
    self.init(
      status: HTTPResponseStatus(statusCode: Int(answer.status)),
      headers: HTTPFields(wireBlock: answer.fields) ?? [:], body: ByteBuffer(bytes: answer.body))
  }
}
