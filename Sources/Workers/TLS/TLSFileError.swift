// Why certificates or keys can't be used, for the operator who configured them.

import COpenSSL

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
