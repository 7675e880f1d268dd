// Certificates made by the openssl command for one test: nothing of ours has a part in making them.

import Foundation
import Testing

@testable import TLS

final class TestCertificates {
  let directory: String

  init() throws {
    directory = NSTemporaryDirectory() + "rig-tls-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }

  func path(_ name: String) -> String { "\(directory)/\(name)" }

  /// A self-signed certificate for `names` and addresses, the first of which is its common name too. `options`: more for
  /// `openssl req`.
  func make(
    _ name: String, _ names: [String], key: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    options: [String] = ["-nodes"]
  ) throws -> CertificateFiles {
    let files = CertificateFiles(certificate: path("\(name).pem"), key: path("\(name).key"))
    let alternatives = Self.alternatives(names)
    try openssl(
      ["req", "-x509", "-days", "30", "-newkey"] + key + options + [
        "-keyout", files.key, "-out", files.certificate, "-subj", "/CN=\(names[0])",
        "-addext", "subjectAltName=\(alternatives)",
      ])
    return files
  }

  /// A certificate that `authority` has made.
  ///
  /// - Parameter days: from now on.
  func issue(
    _ name: String, _ names: [String], by authority: CertificateFiles, days: Int = 30
  ) throws -> CertificateFiles {
    let files = CertificateFiles(certificate: path("\(name).pem"), key: path("\(name).key"))
    let request = path("\(name).csr")
    let extensions = path("\(name).ext")
    try "subjectAltName=\(Self.alternatives(names))\n"
      .write(toFile: extensions, atomically: true, encoding: .utf8)
    try openssl([
      "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", files.key,
      "-out", request, "-subj", "/CN=\(names[0])",
    ])
    try openssl([
      "x509", "-req", "-in", request, "-CA", authority.certificate, "-CAkey", authority.key,
      "-CAcreateserial",
      "-days", String(days), "-extfile", extensions, "-out", files.certificate,
    ])
    return files
  }

  private static func alternatives(_ names: [String]) -> String {
    names.map { name in
      let isAddress = name.contains(":") || name.allSatisfy { $0.isNumber || $0 == "." }
      return (isAddress ? "IP:" : "DNS:") + name
    }.joined(separator: ",")
  }

  @discardableResult
  func openssl(_ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "openssl \(arguments): \(text)")
    return text
  }
}
