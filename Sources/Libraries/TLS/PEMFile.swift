// Files in PEM (RFC 7468) as they are read for TLS: whole, once, and never larger than makes sense.

import COpenSSL
import Glibc

enum PEMFile {
  /// A larger file holds neither certificates nor a key that anybody means.
  private static let mostBytes = 1 << 20

  /// All certificates in a file, in their order; never none. The caller frees them.
  static func certificates(
    in path: String, _ role: TLSFileError.Role
  ) throws(TLSFileError) -> [OpaquePointer] {
    let bio = try open(path, role)
    defer { BIO_free(bio) }
    var certificates: [OpaquePointer] = []
    ERR_clear_error()
    while let certificate = PEM_read_bio_X509(bio, nil, { (_, _, _, _) in -1 }, nil) {
      certificates.append(certificate)
    }
    // The end of the file looks like a text without PEM.
    let isAtEnd = rig_err_is_no_pem(ERR_peek_last_error()) != 0
    let reason = OpenSSLReason.take()
    guard isAtEnd else {
      for certificate in certificates { X509_free(certificate) }
      throw TLSFileError(
        role, path, "certificate \(certificates.count + 1) in it can't be read (\(reason))")
    }
    guard !certificates.isEmpty else {
      throw TLSFileError(role, path, "there is no certificate in it, expected PEM")
    }
    return certificates
  }

  /// A BIO over the file's content, which the caller frees.
  static func open(_ path: String, _ role: TLSFileError.Role) throws(TLSFileError) -> OpaquePointer {
    let bytes = try content(path, role)
    let bio = bytes.withUnsafeBytes { bytes in
      let bio = BIO_new(BIO_s_mem())
      BIO_write(bio, bytes.baseAddress, CInt(clamping: bytes.count))
      return bio
    }
    guard let bio else { throw TLSFileError(role, path, "OpenSSL has no memory for it") }
    return bio
  }

  private static func content(_ path: String, _ role: TLSFileError.Role) throws(TLSFileError) -> [UInt8] {
    // Not waiting: a pipe without a writer would hold the start up for ever.
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw TLSFileError(role, path, "can't be read: \(String(cString: strerror(errno)))")
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      throw TLSFileError(role, path, "is no regular file")
    }
    guard status.st_size <= mostBytes else {
      throw TLSFileError(role, path, "is larger than \(mostBytes) bytes")
    }
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
    var filled = 0
    while filled < bytes.count {
      let count = bytes.withUnsafeMutableBytes { all in
        read(descriptor, all.baseAddress.map { $0 + filled }, all.count - filled)
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else {
        throw TLSFileError(role, path, "can't be read: \(String(cString: strerror(errno)))")
      }
      // Cut short meanwhile: what is there counts.
      if count == 0 { break }
      filled += count
    }
    return Array(bytes[..<filled])
  }
}

/// A file that TLS can't be spoken with. Never holds anything of a key or a password.
public struct TLSFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What the file is for.
  public enum Role: String, Sendable {
    case certificate, key
    /// Certificates of authorities, by which those of peers are judged.
    case authorities
  }

  public let role: Role
  /// The file's path; empty: it isn't one file's fault.
  public let path: String
  public let reason: String

  init(_ role: Role, _ path: String, _ reason: String) {
    self.role = role
    self.path = path
    self.reason = reason
  }

  public var description: String { path.isEmpty ? reason : "\(role.rawValue) file '\(path)': \(reason)" }
}

/// OpenSSL's own words for what went wrong last; clears its queue of errors.
enum OpenSSLReason {
  static func take() -> String {
    let number = ERR_peek_last_error()
    ERR_clear_error()
    guard let text = ERR_reason_error_string(number) else { return "OpenSSL gives no reason" }
    return String(cString: text)
  }
}
