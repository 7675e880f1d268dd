// A signed token apart (RFC 7515 §3.1). Only the form is checked; nothing in it is true until the signature is.
//
//   base64url(header) . base64url(claims) . base64url(signature)
//   └───────── what is signed ─────────┘
//
// Keys and addresses of keys that a header brings along (jwk, jku, x5c, x5u) are never looked at.

import Glibc
import Kit

/// The parts of a token, over the caller's bytes.
struct CompactToken {
  /// As long as a request head can be made to be; tokens of people have one or two kilobytes.
  static let maximumBytes = 65_536
  static let maximumKeyIDBytes = 1_024

  let algorithm: SignatureAlgorithm
  let keyID: String?
  let signed: UnsafeRawBufferPointer
  let signature: [UInt8]
  private let encodedClaims: UnsafeRawBufferPointer

  /// Takes `token` apart. Valid as long as its bytes.
  init(_ token: UnsafeRawBufferPointer, allowed: [SignatureAlgorithm]) throws(TokenError) {
    guard token.count <= Self.maximumBytes else { throw .tooLong(bytes: token.count) }
    guard let first = Self.dot(in: token, from: 0), let second = Self.dot(in: token, from: first + 1),
      Self.dot(in: token, from: second + 1) == nil
    else { throw .malformed("expected three parts with dots between them") }
    guard let header = Base64URL.decode(UnsafeRawBufferPointer(rebasing: token[..<first])) else {
      throw .malformed("its header is no base64url")
    }
    guard let signature = Base64URL.decode(UnsafeRawBufferPointer(rebasing: token[(second + 1)...]))
    else {
      throw .malformed("its signature is no base64url")
    }
    (algorithm, keyID) = try header.withUnsafeBufferPointer { (bytes) throws(TokenError) in
      try Self.header(UnsafeRawBufferPointer(bytes), allowed: allowed)
    }
    self.signature = signature
    signed = UnsafeRawBufferPointer(rebasing: token[..<second])
    encodedClaims = UnsafeRawBufferPointer(rebasing: token[(first + 1)..<second])
  }

  /// The claims, to be called when the signature has been found right.
  func claims() throws(TokenError) -> Claims {
    guard let bytes = Base64URL.decode(encodedClaims) else {
      throw .malformed("its claims are no base64url")
    }
    do throws(JSONError) {
      return try Claims(bytes)
    } catch {
      throw .malformed("its claims: \(error)")
    }
  }

  private static func dot(in token: UnsafeRawBufferPointer, from start: Int) -> Int? {
    guard let base = token.baseAddress, start < token.count,
      let found = memchr(base + start, CInt(UInt8(ascii: ".")), token.count - start)
    else { return nil }
    return UnsafeRawPointer(found) - base
  }

  private static func header(
    _ bytes: UnsafeRawBufferPointer, allowed: [SignatureAlgorithm]
  ) throws(TokenError) -> (SignatureAlgorithm, String?) {
    let index: ObjectIndex
    do throws(JSONError) {
      index = try ObjectIndex(bytes)
    } catch {
      throw .malformed("its header: \(error)")
    }
    // Whoever marks something as critical asks for a refusal by all who don't know it (RFC 7515 §4.1.11).
    guard index.value("crit", in: bytes) == nil else {
      throw .malformed("its header has crit, which is not supported")
    }
    guard let algorithm = index.value("alg", in: bytes) else { throw .malformed("its header has no alg") }
    guard let name = JSONScanner.string(bytes, in: algorithm) else {
      throw .malformed("alg in its header is no string")
    }
    guard let known = SignatureAlgorithm(rawValue: name), allowed.contains(known) else {
      throw name.lowercased() == "none" ? .unsigned : .algorithmNotAllowed(allowed: allowed)
    }
    var keyID: String?
    if let range = index.value("kid", in: bytes) {
      keyID = JSONScanner.string(bytes, in: range)
      guard let keyID, keyID.utf8.count <= maximumKeyIDBytes else {
        throw .malformed("kid in its header is no string of at most \(maximumKeyIDBytes) bytes")
      }
    }
    return (known, keyID)
  }
}
