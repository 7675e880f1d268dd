// What the TLS handler tells others, and what it can be told.

/// Inbound user event: the handshake is done, plain bytes follow.
public struct TLSEstablished: Equatable, Sendable {
  /// The protocol that was agreed on; nil: the client doesn't ask for one, or the server chooses none.
  public let alpn: String?
  /// The name that the client wants to reach; nil: it doesn't say.
  public let serverName: String?
}

/// Outbound user event: the connection's next end is to look like an accident to the peer. No closing alert will be sent.
public struct TLSAbort: Sendable {
  public init() {}
}

/// A server's connection has ended without its closing alert: whether that was all can't be told. The end itself follows.
public struct TLSTruncation: Error, Equatable, CustomStringConvertible {
  public let description = "the connection ended without TLS's farewell"

  init() {}
}

/// How a handshake ended.
public enum TLSHandshakeResult: Equatable, Sendable {
  case done
  /// With a ticket: no signature was made.
  case resumed
  /// In OpenSSL's words, with what a certificate says that isn't believed; also when the peer went in the middle.
  case failed(String)
  case timedOut
  /// The client doesn't speak TLS.
  case notTLS
}

/// The peer broke TLS, or a client's handshake has failed; says nothing of what stands in certificates.
public struct TLSFailure: Error, Equatable, CustomStringConvertible {
  public let description: String
}
