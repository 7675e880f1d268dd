// Sessions are remembered by digests, so that a list of ended sessions isn't a list of names, and has entries of one size.

import Kit

/// Makes the digests by which sessions are remembered. Belongs to one thread.
public final class SessionHasher {
  private let hasher: TokenHasher

  /// Nil if OpenSSL has no SHA-256 or no memory.
  public init?() {
    guard let hasher = TokenHasher() else { return nil }
    self.hasher = hasher
  }

  /// The digest of a session's name; nil if OpenSSL fails: treat the session as blacklisted.
  public func digest(_ session: String) -> SessionDigest? {
    var session = session
    return session.withUTF8 { hasher.digest(UnsafeRawBufferPointer($0)) }?.session
  }
}
