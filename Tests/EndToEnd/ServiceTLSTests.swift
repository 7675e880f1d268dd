// Services behind https: whose certificate is believed, what an operator and a client are told of one that isn't, sessions that are
// resumed, and answers that are cut off. The services' TLS is OpenSSL's by hand.

import COpenSSL
import Foundation
import Glibc
import Testing

@Suite("Services behind TLS", .serialized)
final class ServiceTLSTests {
  private static let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  private let directory: TestDirectory
  private let authority: TestCertificate
  private let good: TestCertificate

  init() throws {
    directory = try TestDirectory()
    authority = try TestCertificate(directory.path, ["authority.example"], file: "authority")
    good = try TestCertificate(directory.path, ["localhost"], by: authority, file: "good")
  }

  /// An API whose only endpoint is `/id`, at `host`.
  private static func api(_ id: String, _ service: TLSService, host: String = "localhost") -> TestAPI {
    TestAPI(
      id: id, port: service.port, target: "https://\(host)",
      endpoint: #""method":"GET","path_regex":"/\#(id)""#)
  }

  private func handshakes(_ gateway: Gateway, _ result: String) throws -> Double {
    try gateway.metric("rig_service_tls_handshakes_total", ["result": result])
  }

  @Test(
    "15.9 A service is believed whose certificate is an authority's of PROXY_CA_CERTFILE, its own name's and valid"
  )
  func verification() throws {
    let path = directory.path
    let other = try TestCertificate(path, ["other.example", "*.localhost"], by: authority, file: "other")
    let expired = try TestCertificate(path, ["localhost"], by: authority, days: -1, file: "expired")
    let selfSigned = try TestCertificate(path, ["localhost"], file: "selfsigned")
    let table: [(String, TestCertificate, String, String?, String)] = [
      ("good", good, "localhost", nil, ""),
      ("name", other, "localhost", "hostname mismatch", "it is for other.example, *.localhost"),
      ("address", good, "127.0.0.1", "IP address mismatch", "it is for localhost"),
      ("expired", expired, "localhost", "certificate has expired", "on 20"),
      ("selfsigned", selfSigned, "localhost", "self-signed certificate", ""),
    ]
    try Gateway.run(["PROXY_CA_CERTFILE": authority.file]) { gateway in
      for (id, certificate, host, refusal, detail) in table {
        let service = try TLSService(TLSServing(certificate), TLSService.answering(Self.ok))
        defer { service.stop() }
        try gateway.define(Self.api(id, service, host: host))
        let answer = try gateway.inbound("GET", "/\(id)")
        guard let refusal else {
          #expect(answer.status == 200 && answer.text == "ok", "\(answer.text)")
          #expect(service.handshakes.first?.name == "localhost")
          continue
        }
        #expect(
          answer.status == 502 && answer.text.contains(refusal), "\(id): \(answer.status) \(answer.text)")
        // An address and the names of a certificate are for operators.
        #expect(
          !answer.text.contains("\(service.port)") && !answer.text.contains("it is for"), "\(answer.text)")
        let lines = gateway.logged("TLS handshake with a service failed")
        let line = lines.last { $0["service"]?.string == "https://\(host):\(service.port)" }
        let reason = line?["reason"]?.string ?? ""
        #expect(
          reason.contains(refusal) && (detail.isEmpty || reason.contains(detail)),
          "\(id): \(reason) in \(lines)")
        #expect(service.handshakes.allSatisfy { $0.failure != nil }, "the service hears of it too")
      }
      #expect(try handshakes(gateway, "done") == 1 && handshakes(gateway, "failed") >= 4)
    }
  }

  @Test("15.9 Without PROXY_CA_CERTFILE those count that the system trusts; who speaks no TLS is told so")
  func system() throws {
    let service = try TLSService(TLSServing(good), TLSService.answering(Self.ok))
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.api("unknown", service))
      let answer = try gateway.inbound("GET", "/unknown")
      #expect(
        answer.status == 502 && answer.text.contains("unable to get local issuer certificate"),
        "\(answer.text)")
      // A port that speaks plain HTTP.
      try gateway.define(
        TestAPI(
          id: "plain", port: gateway.managementPort, target: "https://127.0.0.1",
          endpoint: #""method":"GET","path_regex":"/plain""#))
      let plain = try gateway.inbound("GET", "/plain")
      #expect(plain.status == 502 && plain.text.contains("doesn't speak TLS"), "\(plain.text)")
    }
    // Where a system keeps what it trusts can be said to OpenSSL.
    try Gateway.run(["SSL_CERT_FILE": authority.file]) { gateway in
      try gateway.define(Self.api("known", service))
      #expect(try gateway.inbound("GET", "/known").status == 200)
    }
  }

  @Test(
    "15.9 A session is resumed, of TLS 1.2 and 1.3, as the service sees it",
    arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func resumption(version: Int32) throws {
    let serving = try TLSServing(good, maximumVersion: version)
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    let service = try TLSService(serving, TLSService.answering(answer) { try $0.sayGoodbye() })
    defer { service.stop() }
    try Gateway.run(["PROXY_CA_CERTFILE": authority.file]) { gateway in
      try gateway.define(Self.api("again", service))
      for _ in 0..<4 {
        #expect(try gateway.inbound("GET", "/again").status == 200)
        try eventually("the connection has ended") { service.openConnections == 0 }
      }
      #expect(service.handshakes.map(\.isResumed) == [false, true, true, true])
      #expect(try handshakes(gateway, "resumed") == 3)
      #expect(service.handshakes.allSatisfy { $0.chosen == "http/1.1" })
    }
  }

  @Test(
    "15.9 An answer that ends with its connection is whole only behind the service's farewell",
    arguments: [true, false])
  func truncation(isPolite: Bool) throws {
    let service = try TLSService(
      TLSServing(good),
      TLSService.answering("HTTP/1.1 200 OK\r\n\r\nall of it") { wire in
        if isPolite { try wire.sayGoodbye() }
      })
    defer { service.stop() }
    try Gateway.run(["PROXY_CA_CERTFILE": authority.file]) { gateway in
      try gateway.define(Self.api("end", service))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/end", headers: [("connection", "close")]))
      let text = try http.wire.receiveToEnd().text
      #expect(text.hasPrefix("HTTP/1.1 200"), "\(text)")
      #expect(text.hasSuffix("0\r\n\r\n") == isPolite, "\(text)")
    }
  }

  @Test("15.9 On SIGHUP the file of PROXY_CA_CERTFILE is read again; one that can't be used changes nothing")
  func reload() throws {
    let trusted = directory.file("trusted.pem")
    func trust(_ text: String) throws { try text.write(toFile: trusted, atomically: true, encoding: .utf8) }
    try trust(
      try String(contentsOfFile: try TestCertificate(directory.path, ["x.example"]).file, encoding: .utf8))
    let service = try TLSService(TLSServing(good), TLSService.answering(Self.ok))
    defer { service.stop() }
    try Gateway.run(["PROXY_CA_CERTFILE": trusted]) { gateway in
      try gateway.define(Self.api("later", service))
      #expect(try gateway.inbound("GET", "/later").status == 502)
      try trust(try String(contentsOfFile: authority.file, encoding: .utf8))
      gateway.process.signal(SIGHUP)
      try eventually("it is read again") {
        try gateway.metric("rig_tls_reloads_total", ["result": "done"]) == 1
      }
      #expect(try gateway.inbound("GET", "/later").status == 200)
      try trust("no PEM")
      gateway.process.signal(SIGHUP)
      try eventually("it was tried") {
        try gateway.metric("rig_tls_reloads_total", ["result": "failed"]) == 1
      }
      let lines = gateway.logged("trusted certificates can't be used; the former ones stay")
      #expect(lines.count == 1 && lines[0]["reason"]?.string?.contains(trusted) == true, "\(lines)")
      #expect(try gateway.inbound("GET", "/later").status == 200)
    }
  }

  @Test("15.9 A check service behind https is asked by the same rules")
  func check() throws {
    let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    for (certificate, status) in [(good, 202), (try TestCertificate(directory.path, ["localhost"]), 503)] {
      let service = try TLSService(
        TLSServing(certificate),
        { wire in
          // The event comes with the head, or behind it: whatever has come by then is enough.
          try wire.receive("a request") { queue in
            queue.distance(to: "greeting").map { _ in _ = queue.takeAll() }
          }
          try wire.send(answer)
          try wire.sayGoodbye()
        })
      defer { service.stop() }
      let settings = [
        "PROXY_CA_CERTFILE": authority.file, "SUBMISSION_CHECK": "https://localhost:\(service.port)/check",
      ]
      try Gateway.run(settings) { gateway in
        let answer = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("greeting"))
        #expect(answer.status == status, "\(answer.status) \(answer.text)")
      }
    }
  }
}
