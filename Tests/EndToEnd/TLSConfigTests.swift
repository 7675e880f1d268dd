// Certificates as an operator meets them: mistakes that stop the start by name, and certificates that change while the
// gateway runs. Contract §10.

import Foundation
import Glibc
import Testing

@Suite("TLS configuration", .serialized)
final class TLSConfigTests {
  private static let wrong = Ending.exited(78)
  private static let password = "s3cr3t-Xyzzy"
  private let directory: TestDirectory
  private let own: TestCertificate
  private let other: TestCertificate
  private let locked: TestCertificate

  init() throws {
    directory = try TestDirectory()
    let path = directory.path
    own = try TestCertificate(path, ["own.example"])
    other = try TestCertificate(path, ["other.example"])
    locked = try TestCertificate(path, ["locked.example"], password: Self.password)
  }

  @Test(
    "Every mistake is found by --check-config and stops the start, with its name and status 78 (15.9 of PROXY_CA_CERTFILE too)"
  )
  func mistakes() throws {
    let table: [([String: String], [String])] = [
      (
        ["HTTPS_CERTFILE": "/nowhere.pem", "HTTPS_KEYFILE": own.keyFile],
        ["HTTPS_CERTFILE", "/nowhere.pem", "No such file"]
      ),
      (
        ["HTTPS_CERTFILE": own.file, "HTTPS_KEYFILE": other.keyFile],
        ["HTTPS_KEYFILE", other.keyFile, "is not the key of", own.file]
      ),
      (TestCertificate.settings(locked), ["HTTPS_KEYFILE", locked.keyFile, "none is given"]),
      (
        TestCertificate.settings(locked, more: ["HTTPS_KEYFILE_PASS": "wr0ng-Xyzzy"]),
        ["HTTPS_KEYFILE", locked.keyFile, "can't be decrypted"]
      ),
      (["HTTPS_CERTFILE": own.file], ["HTTPS_CERTFILE, HTTPS_KEYFILE", "1 and 0"]),
      (["HTTPS_KEYFILE": own.keyFile], ["HTTPS_CERTFILE, HTTPS_KEYFILE", "0 and 1"]),
      (["HTTPS_KEYFILE_PASS": "wr0ng-Xyzzy"], ["HTTPS_KEYFILE_PASS"]),
      (["PROXY_CA_CERTFILE": "/nowhere.pem"], ["PROXY_CA_CERTFILE", "/nowhere.pem", "No such file"]),
      (["PROXY_CA_CERTFILE": own.keyFile], ["PROXY_CA_CERTFILE", own.keyFile, "no certificate in it"]),
      (
        TestCertificate.settings(own, more: ["INBOUND_HTTPS_PORT": "4011"]),
        ["INBOUND_HTTPS_PORT, API_HTTPS_PORT", "4011"]
      ),
    ]
    let ports = [
      "INBOUND_PORT": "0", "API_HTTP_PORT": "0", "INBOUND_HTTPS_PORT": "0", "BIND_ADDRESS": "127.0.0.1",
    ]
    for (settings, words) in table {
      for arguments in [["--check-config"], ["--set", "CONNECTION_WORKERS=1"]] {
        let run = try GatewayRun(arguments, environment: ports.merging(settings) { $1 })
        #expect(run.ending == Self.wrong, "\(settings): \(run.ending) \(run.output)")
        for word in words { #expect(run.output.contains(word), "\(word): \(run.output)") }
        #expect(!run.output.contains("Xyzzy"))
      }
    }
  }

  @Test("A right configuration is called so, by arguments or by file")
  func right() throws {
    let settings = TestCertificate.settings(
      own, locked, more: ["HTTPS_KEYFILE_PASS": Self.password, "PROXY_CA_CERTFILE": own.file])
    let run = try GatewayRun(["--check-config"], environment: settings)
    #expect(run.ending == .exited(0) && run.output.contains("configuration is valid"), "\(run.output)")
    let file = directory.file("rig.yaml")
    try "https_certfile: [\(own.file), \(other.file)]\nhttps_keyfile: [\(own.keyFile), \(other.keyFile)]\n"
      .write(toFile: file, atomically: true, encoding: .utf8)
    let second = try GatewayRun(["--config", file, "--check-config"])
    #expect(second.ending == .exited(0), "\(second.output)")
  }

  @Test("A key under a password is used, and the password is seen nowhere")
  func password() throws {
    let settings = TestCertificate.settings(
      locked, more: ["HTTPS_KEYFILE_PASS": Self.password, "LOG_LEVEL": "trace"])
    try Gateway.run(settings) { gateway in
      let http = HTTPConnection(wire: try gateway.wire(nil, TLSEnd()))
      #expect(try http.send("GET", "/_rig/health").status == 200)
      #expect(!gateway.log.contains(Self.password))
    }
  }

  @Test("On SIGHUP new certificates are served; no request fails meanwhile and no worker is replaced")
  func reload() throws {
    let settings = try Gateway.settingsForAllWorkers(TestCertificate.settings(own))
    try Gateway.run(settings) { gateway in
      let before = gateway.process.tree()
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"), tls: TLSEnd())
      let load = try TLSLoad(gateway.inboundTLSPort, threads: 3)
      defer { load.stop() }
      let versions = [
        try TestCertificate(directory.path, ["fresh.example"], file: "fresh"),
        try TestCertificate(directory.path, ["fresher.example"], isRSA: true, file: "fresher"),
      ]
      try load.awaitHandshakes(30)
      #expect(load.names == ["own.example"])
      for (index, name) in ["fresh.example", "fresher.example"].enumerated() {
        try Self.replace(own, by: versions[index])
        gateway.process.signal(SIGHUP)
        try eventually("every worker has read them") {
          try gateway.metric("rig_tls_reloads_total", ["result": "done"]) == Double(3 * (index + 1))
        }
        // Those that had begun before may still be on their way.
        try load.awaitHandshakes(3)
        load.forgetNames()
        try load.awaitHandshakes(30)
        #expect(load.names == [name])
      }
      load.stop()
      #expect(load.failures == [])
      try gateway.publish(CloudEvent.json("a"))
      try stream.event(named: "a")
      #expect(gateway.process.tree() == before)
    }
  }

  @Test("A bad file on SIGHUP changes nothing, is logged and counted")
  func badReload() throws {
    try Gateway.run(TestCertificate.settings(own)) { gateway in
      try "no PEM".write(toFile: own.file, atomically: true, encoding: .utf8)
      gateway.process.signal(SIGHUP)
      try eventually("every worker has tried") {
        try gateway.metric("rig_tls_reloads_total", ["result": "failed"]) == 3
      }
      let lines = gateway.logged("certificates can't be used; the former ones stay")
      #expect(lines.count == 3)
      #expect(lines.allSatisfy { $0["reason"]?.string?.contains(own.file) == true })
      let tls = try TLSEnd()
      let http = HTTPConnection(wire: try gateway.wire(nil, tls))
      #expect(try http.send("GET", "/_rig/health").status == 200)
      #expect(tls.serverName == "own.example")
    }
  }

  @Test("Many SIGHUPs, also while workers start anew, kill nobody")
  func manyReloads() throws {
    let settings = try Gateway.settingsForAllWorkers(TestCertificate.settings(own))
    try Gateway.run(settings) { gateway in
      for _ in 0..<3 {
        let worker = try #require(gateway.workers(.connections).first)
        let count = gateway.workers(.connections).count
        kill(worker.pid, SIGKILL)
        for _ in 0..<200 { gateway.process.signal(SIGHUP) }
        try gateway.awaitReplacement(of: worker, kind: .connections, count: count)
      }
      #expect(try gateway.metric("rig_worker_restarts_total") == 3)
      // Not the supervisor's way, but nobody dies of it.
      let all = gateway.process.tree()
      for kind in WorkerKind.allCases {
        for worker in gateway.workers(kind) { kill(worker.pid, SIGHUP) }
      }
      try gateway.publish(CloudEvent.json("a"))
      try gateway.waitUntilReady()
      #expect(gateway.process.tree() == all)
    }
  }

  private static func replace(_ old: TestCertificate, by new: TestCertificate) throws {
    for (from, to) in [(new.file, old.file), (new.keyFile, old.keyFile)] {
      #expect(rename(from, to) == 0)
    }
  }
}
