// What a token is remembered by. A cache of tokens would be a list of credentials; this is a list of numbers.

import COpenSSL
import Kit
import Links

/// SHA-256 of a token: two tokens of the same digest can't be made.
struct TokenDigest: Hashable, Sendable {
  private let words: (UInt64, UInt64, UInt64, UInt64)

  fileprivate init(_ bytes: UnsafeRawBufferPointer) {
    words = (
      bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self),
      bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
      bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self),
      bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
    )
  }

  /// The first half, for a session's name.
  var session: SessionDigest { SessionDigest(low: words.0, high: words.1) }

  static func == (a: TokenDigest, b: TokenDigest) -> Bool { a.words == b.words }

  /// One word is as good as four: nobody can choose it, and the hasher is seeded.
  func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

/// Makes digests with what is prepared once. Belongs to one thread.
final class TokenHasher {
  private static let digestBytes = 32
  private let algorithm: OpaquePointer
  private let context: OpaquePointer
  private var output = [UInt8](repeating: 0, count: TokenHasher.digestBytes)

  /// Nil if OpenSSL has no SHA-256 or no memory.
  init?() {
    guard let algorithm = EVP_MD_fetch(nil, "SHA256", nil) else { return nil }
    guard let context = EVP_MD_CTX_new() else {
      EVP_MD_free(algorithm)
      return nil
    }
    self.algorithm = algorithm
    self.context = context
  }

  deinit {
    EVP_MD_CTX_free(context)
    EVP_MD_free(algorithm)
  }

  /// Nil if OpenSSL fails.
  func digest(_ token: UnsafeRawBufferPointer) -> TokenDigest? {
    guard EVP_DigestInit_ex2(context, algorithm, nil) == 1,
      EVP_DigestUpdate(context, token.baseAddress, token.count) == 1,
      EVP_DigestFinal_ex(context, &output, nil) == 1
    else {
      ERR_clear_error()
      return nil
    }
    return output.withUnsafeBytes { TokenDigest($0) }
  }
}

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
