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

  /// A self-signed certificate for `names`, the first of which is its common name too. `options`: more for `openssl req`.
  func make(
    _ name: String, _ names: [String], key: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    options: [String] = ["-nodes"]
  ) throws -> CertificateFiles {
    let files = CertificateFiles(certificate: path("\(name).pem"), key: path("\(name).key"))
    let alternatives = names.map { "DNS:\($0)" }.joined(separator: ",")
    try openssl(
      ["req", "-x509", "-days", "30", "-newkey"] + key + options + [
        "-keyout", files.key, "-out", files.certificate, "-subj", "/CN=\(names[0])",
        "-addext", "subjectAltName=\(alternatives)",
      ])
    return files
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
