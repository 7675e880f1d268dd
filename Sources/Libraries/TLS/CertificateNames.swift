// The server names that a certificate is for (RFC 6125): the DNS names in it or, where there are none, its common name.
// And which of several certificates a client gets that asks for a name (RFC 6066 §3).
//
//   api.example.com      that name
//   *.example.com        any one label before it: a.example.com, not example.com, not a.b.example.com

import COpenSSL
import Glibc

enum CertificateNames {
  /// In lower case.
  static func names(of certificate: OpaquePointer) -> [String] {
    var names: [String] = []
    if let found = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) {
      let alternatives = OpaquePointer(found)
      defer { GENERAL_NAMES_free(alternatives) }
      for index in 0..<rig_general_names_count(alternatives) {
        var count: CInt = 0
        guard let bytes = rig_general_names_dns(alternatives, index, &count), count > 0 else { continue }
        names.append(name(UnsafeBufferPointer(start: bytes, count: Int(count))))
      }
    }
    if names.isEmpty, let common = commonName(of: certificate) { names.append(common) }
    ERR_clear_error()
    return names
  }

  /// End of the validity, in seconds since 1970.
  static func notAfter(of certificate: OpaquePointer) -> Int {
    var time = tm()
    guard ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) == 1 else { return 0 }
    return timegm(&time)
  }

  private static func commonName(of certificate: OpaquePointer) -> String? {
    guard let subject = X509_get_subject_name(certificate) else { return nil }
    let index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
    guard index >= 0, let entry = X509_NAME_get_entry(subject, index),
      let text = X509_NAME_ENTRY_get_data(entry), let bytes = ASN1_STRING_get0_data(text)
    else { return nil }
    return name(UnsafeBufferPointer(start: bytes, count: Int(ASN1_STRING_length(text))))
  }

  private static func name(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
    String(decoding: bytes, as: UTF8.self).lowercased()
  }
}

/// Which certificate is for which name. Of several for one name the first counts.
struct CertificateChoice {
  private var exact: [String: Int] = [:]
  /// By what stands behind the star.
  private var wildcards: [String: Int] = [:]

  /// - Parameter names: of each certificate.
  init(_ names: [[String]]) {
    for (index, names) in names.enumerated() {
      for name in names {
        if name.hasPrefix("*.") {
          let suffix = String(name.dropFirst())
          wildcards[suffix] = wildcards[suffix] ?? index
        } else {
          exact[name] = exact[name] ?? index
        }
      }
    }
  }

  /// The place of the certificate for `name`; nil: none is for it.
  func index(for name: String) -> Int? {
    var name = name.lowercased()
    if name.hasSuffix(".") { name.removeLast() }
    if let index = exact[name] { return index }
    guard let dot = name.firstIndex(of: "."), dot != name.startIndex else { return nil }
    return wildcards[String(name[dot...])]
  }
}
