// Certificates by the openssl command: nothing of the gateway's has a part in them.

import Foundation

struct TestCertificate {
  let file: String
  let keyFile: String

  /// Makes one for `names` in `directory`; the first of them is its common name too.
  ///
  /// - Parameter password: of the key; nil: none.
  init(
    _ directory: String, _ names: [String], isRSA: Bool = false, password: String? = nil, file: String? = nil
  )
    throws
  {
    let name = file ?? names[0]
    self.file = "\(directory)/\(name).pem"
    keyFile = "\(directory)/\(name).key"
    let key = isRSA ? ["rsa:2048"] : ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    let lock = password.map { ["-passout", "pass:\($0)"] } ?? ["-nodes"]
    try Command.run(
      "openssl",
      ["req", "-x509", "-days", "30", "-newkey"] + key + lock + [
        "-keyout", keyFile, "-out", self.file, "-subj", "/CN=\(names[0])", "-addext",
        "subjectAltName=" + names.map { "DNS:\($0)" }.joined(separator: ","),
      ])
  }

  /// Makes one for `names` in `directory` that `authority` vouches for.
  ///
  /// - Parameter days: of its validity, from now on; negative: it is over.
  init(
    _ directory: String, _ names: [String], by authority: TestCertificate, days: Int = 30, file name: String
  ) throws {
    file = "\(directory)/\(name).pem"
    keyFile = "\(directory)/\(name).key"
    let (request, extensions) = ("\(directory)/\(name).csr", "\(directory)/\(name).ext")
    try "subjectAltName=\(names.map { "DNS:\($0)" }.joined(separator: ","))\n"
      .write(toFile: extensions, atomically: true, encoding: .utf8)
    try Command.run(
      "openssl",
      [
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyFile,
        "-out", request, "-subj", "/CN=\(names[0])",
      ])
    try Command.run(
      "openssl",
      [
        "x509", "-req", "-in", request, "-CA", authority.file, "-CAkey", authority.keyFile, "-CAcreateserial",
        "-days", String(days), "-extfile", extensions, "-out", file,
      ])
  }

  /// Settings of a gateway that has these certificates, the default one first.
  static func settings(_ certificates: TestCertificate..., more: [String: String] = [:]) -> [String: String] {
    [
      "HTTPS_CERTFILE": certificates.map(\.file).joined(separator: ","),
      "HTTPS_KEYFILE": certificates.map(\.keyFile).joined(separator: ","),
    ].merging(more) { $1 }
  }
}

/// Programs that do something and end.
enum Command {
  /// Runs it to its end. What it prints; throws unless it ends well.
  @discardableResult
  static func run(_ name: String, _ arguments: [String]) throws -> String {
    let (ending, output) = try ending(name, arguments)
    guard ending == .exited(0) else { throw TestFailure("\(name) \(arguments): \(ending) \(output)") }
    return output
  }

  static func ending(_ name: String, _ arguments: [String]) throws -> (Ending, String) {
    let directory = try TestDirectory()
    let process = try ChildProcess(
      Tools.system(name), arguments, environment: [:], directory: directory.path)
    defer { try? process.killTree() }
    let ending = try process.wait()
    return (ending, (try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)) ?? "")
  }
}
