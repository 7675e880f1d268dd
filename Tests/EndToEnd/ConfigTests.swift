// The configuration as an operator meets it: what `rig-supervisor` says, its exit status, and what it never says.
// Contract §10.

import Foundation
import Glibc
import Testing

@Suite("Configuration")
struct ConfigTests {
  private static let wrong = Ending.exited(78)
  private static let noSystem = Ending.exited(71)

  @Test("--check-config accepts a right configuration, says so and starts nothing")
  func valid() throws {
    let directory = try TestDirectory()
    let file = directory.file("rig.yaml")
    let text = """
      inbound_port: 0
      API_HTTP_PORT: 0
      cors: https://app.example.com
      extractors:
        greeting:
          name:
            event: {json_pointer: /data/name}
      kafka-brokers: [kafka-1:9092, "[::1]:9092"]
      """
    try text.write(toFile: file, atomically: true, encoding: .utf8)
    let run = try GatewayRun(
      ["--config", file, "--check-config", "--set", "WATCHDOG_S=5"], environment: ["LOG_LEVEL": "debug"])
    #expect(run.ending == .exited(0), "\(run.output)")
    #expect(run.output.contains("configuration is valid"))
  }

  @Test(
    "Every mistake of every layer is named with its place, in one run, and the status is 78",
    arguments: [true, false])
  func mistakes(onlyChecks: Bool) throws {
    let directory = try TestDirectory()
    let file = directory.file("rig.yaml")
    let text = """
      inbound_port: 99999
      watchdogs: 3
      log_level: loud
      extractors:
        greeting:
          name:
            event: {json_pointer: data/name}
      """
    try text.write(toFile: file, atomically: true, encoding: .utf8)
    let run = try GatewayRun(
      ["--config", file, "--set", "KAFKA_SSL_ENABLED=perhaps", "--set", "NONSENSE=1"]
        + (onlyChecks ? ["--check-config"] : []),
      environment: ["CORS": "app.example.com", "MAX_EVENT_BYTES": "lots"])
    #expect(run.ending == Self.wrong)
    let lines = run.output.split(separator: "\n")
    let expected = [
      ("\(file):1:1", "99999"), ("\(file):2:1", "'watchdogs'"), ("\(file):3:1", "loud"),
      ("\(file):7:", "json_pointer"),
      ("environment CORS", "app.example.com"), ("environment MAX_EVENT_BYTES", "lots"),
      ("--set KAFKA_SSL_ENABLED", "perhaps"), ("--set NONSENSE", "unknown key"),
    ]
    for (place, what) in expected {
      #expect(lines.contains { $0.contains(place) && $0.contains(what) }, "\(place): \(what)\n\(run.output)")
    }
    #expect(lines.count == expected.count, "\(run.output)")
  }

  @Test(
    "14.D19 --check-config loads what a start would load, and names each mistake with its place in one run")
  func loadedByWorkers() throws {
    let directory = try TestDirectory()
    let keys = directory.file("keys.json")
    try #"{"keys":"none"}"#.write(toFile: keys, atomically: true, encoding: .utf8)
    let definitions = directory.file("apis.json")
    let text =
      "[\(TestAPI(id: "one", port: 1).json),\(TestAPI(id: "two", port: 99_999).json),{\"id\":\"three\"}]"
    try text.write(toFile: definitions, atomically: true, encoding: .utf8)
    let environment = [
      "PROXY_CONFIG_FILE": definitions,
      "JWT_SECRET_KEY": "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----",
      "JWT_ALG": "RS256", "JWT_JWKS": keys, "HTTPS_CERTFILE": "/no/cert.pem", "HTTPS_KEYFILE": "/no/key.pem",
      "KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_SSL_ENABLED": "true", "KAFKA_SSL_CA_CERTFILE": "/no/ca.pem",
    ]
    let run = try GatewayRun(["--check-config"], environment: environment)
    #expect(run.ending == Self.wrong, "\(run.output)")
    let lines = run.output.split(separator: "\n")
    for (place, what) in [
      ("PROXY_CONFIG_FILE: definition 2 (two)", "port"), ("PROXY_CONFIG_FILE: definition 3 (three)", "proxy"),
      ("JWT_SECRET_KEY: ", "PEM"), ("JWT_JWKS: '\(keys)'", "'keys'"), ("HTTPS_CERTFILE: ", "/no/cert.pem"),
      ("KAFKA_SSL_CA_CERTFILE: ", "/no/ca.pem"),
    ] {
      #expect(lines.contains { $0.contains(place) && $0.contains(what) }, "\(place) \(what)\n\(run.output)")
    }
    #expect(!run.output.contains("configuration is valid"))
  }

  @Test(
    "14.D19 A property that librdkafka doesn't know, and a state file that makes no sense, are named; a start fails by them alike"
  )
  func unusable() throws {
    let directory = try TestDirectory()
    try "nonsense".write(toFile: directory.file("definitions"), atomically: true, encoding: .utf8)
    let ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0", "KAFKA_BROKERS": "127.0.0.1:1"]
    let state = try GatewayRun(
      ["--check-config"], environment: ports.merging(["STATE_DIR": directory.path]) { $1 })
    #expect(
      state.ending == Self.wrong && state.output.contains(directory.file("definitions")), "\(state.output)")
    for arguments in [["--check-config"], []] {
      let run = try GatewayRun(
        arguments, environment: ports.merging(["KAFKA_PROPERTIES": "no.such.property=1"]) { $1 })
      #expect(run.ending == Self.wrong && run.output.contains("no.such.property"), "\(run.output)")
    }
  }

  @Test(
    "14.D19 What is accepted and of no effect is said: files without TLS for brokers, a schema, RIG's other variables"
  )
  func warnings() throws {
    let endpoint = #""method":"POST","path_regex":"/a","target":"kafka","topic":"t","schema":"s""#
    let run = try GatewayRun(
      ["--check-config"],
      environment: [
        "KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_SSL_CA_CERTFILE": "/no/ca.pem", "NATS_SERVERS": "a:1",
        "PROXY_CONFIG_FILE": "[\(TestAPI(port: 1, endpoint: endpoint).json)]",
        "SUBSCRIPTION_CHECK": "NO_CHECK", "TCP_USER_TIMEOUT_S": "30",
      ])
    #expect(run.ending == .exited(0), "\(run.output)")
    for words in [
      "KAFKA_SSL_CA_CERTFILE", "NATS_SERVERS", "API books, endpoint only: schema",
      "TCP_USER_TIMEOUT_S, SLOW_CONSUMER_S: 30 and 30",
    ] {
      #expect(
        run.output.split(separator: "\n").contains { $0.hasPrefix("warning: ") && $0.contains(words) },
        "\(words)\n\(run.output)")
    }
    #expect(run.output.contains("configuration is valid"))
  }

  @Test(
    "An unknown key is answered with the nearest known one",
    arguments: [("inbound_prot", "INBOUND_PORT"), ("KAFKA_BROKER", "KAFKA_BROKERS")])
  func nearest(written: String, meant: String) throws {
    let directory = try TestDirectory()
    let file = directory.file("rig.json")
    try #"{"\#(written)":"1"}"#.write(toFile: file, atomically: true, encoding: .utf8)
    let run = try GatewayRun(["--config", file, "--check-config"])
    #expect(run.ending == Self.wrong)
    #expect(
      run.output.contains("\(file):1:2") && run.output.contains(written) && run.output.contains(meant),
      "\(run.output)")
  }

  @Test("A misspelt option or a missing file is refused with what was expected")
  func commandLine() throws {
    let table: [([String], String)] = [
      (["--chek-config"], "--check-config"), (["--config"], "path"),
      (["--config", "/nowhere/rig.yaml"], "no such file"),
      (["--set", "INBOUND_PORT"], "KEY=VALUE"), (["serve"], "--help"),
      (["--set", "INBOUND_PORT=4010"], "API_HTTP_PORT"),
    ]
    for (arguments, expected) in table {
      let run = try GatewayRun(arguments)
      #expect(run.ending == Self.wrong, "\(arguments): \(run.ending)")
      #expect(run.output.contains(expected), "\(arguments): \(run.output)")
    }
  }

  @Test("--help shows every key with its default, --version the version; both end well")
  func help() throws {
    let help = try GatewayRun(["--help"])
    #expect(help.ending == .exited(0))
    for text in [
      "--check-config", "INBOUND_PORT", "4000", "KAFKA_SOURCE_TOPICS", "EXTRACTORS", "WATCHDOG_S", "JWT_ALG",
    ] {
      #expect(help.output.contains(text), "\(text)")
    }
    let version = try GatewayRun(["--version"])
    #expect(version.ending == .exited(0))
    #expect(version.output.hasPrefix("rig-supervisor "))
    #expect(version.output.split(separator: "\n").count == 1)
  }

  @Test(
    "A port that somebody else has ends the start with 71 and names the setting",
    arguments: ["INBOUND_PORT", "API_HTTP_PORT"])
  func portInUse(setting: String) throws {
    try Gateway.run { other in
      var ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0", "BIND_ADDRESS": "127.0.0.1"]
      ports[setting] = String(other.inboundPort)
      let run = try GatewayRun([], environment: ports)
      #expect(run.ending == Self.noSystem)
      #expect(run.output.contains(setting) && run.output.contains(String(other.inboundPort)), "\(run.output)")
    }
  }

  @Test(
    "An address that isn't this machine's ends the start with 71, and what is none with 78",
    arguments: ["BIND_ADDRESS", "API_BIND_ADDRESS"])
  func wrongAddress(setting: String) throws {
    let ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0"]
    for (address, ending) in [("192.0.2.1", Self.noSystem), ("nowhere.example", Self.wrong)] {
      let run = try GatewayRun([], environment: ports.merging([setting: address]) { $1 })
      #expect(run.ending == ending, "\(run.output)")
      #expect(run.output.contains(address), "\(run.output)")
    }
  }

  @Test("13.A6: an empty secret counts as not set, and --set refuses one, also when the gateway is started")
  func emptySecrets() throws {
    let run = try GatewayRun(
      ["--check-config"],
      environment: ["MANAGEMENT_TOKEN": "", "JWT_SECRET_KEY": " ", "BIND_ADDRESS": "0.0.0.0"])
    #expect(run.ending == .exited(0), "\(run.output)")
    for words in ["MANAGEMENT_TOKEN is empty", "JWT_SECRET_KEY is empty", "MANAGEMENT PORTS ARE OPEN"] {
      #expect(run.output.contains(words), "\(run.output)")
    }
    let refused = try GatewayRun(["--set", "MANAGEMENT_TOKEN=\(Self.secret)-token"])
    #expect(refused.ending == Self.wrong)
    #expect(refused.output.contains("MANAGEMENT_TOKEN_FILE") && !refused.output.contains(Self.secret))
  }

  /// What must be seen nowhere.
  private static let secret = "s3cr3t-Xyzzy"
  private static let secrets = [
    "KAFKA_SASL": "plain:alice:\(secret)", "KAFKA_SSL_KEYFILE_PASS": secret,
    "KAFKA_PROPERTIES": "ssl.key.password=\(secret)",
    "JWT_SECRET_KEY": secret, "MANAGEMENT_TOKEN": "\(secret)-token",
  ]

  @Test("A secret is shown by no mistake, no warning and no check")
  func secretsInMistakes() throws {
    for (key, value) in [
      ("KAFKA_SASL", "\(Self.secret):x"), ("KAFKA_SASL", Self.secret), ("MANAGEMENT_TOKEN", Self.secret),
      ("KAFKA_PROPERTIES", Self.secret),
    ] {
      for run in [
        try GatewayRun(["--check-config"], environment: [key: value]),
        try GatewayRun(["--check-config", "--set", "\(key)=\(value)"]),
      ] {
        #expect(run.ending == Self.wrong, "\(key)")
        #expect(run.output.contains(key))
        #expect(!run.output.contains(Self.secret), "\(run.output)")
      }
    }
    let checked = try GatewayRun(["--check-config"], environment: Self.secrets)
    #expect(checked.ending == .exited(0), "\(checked.output)")
    #expect(!checked.output.contains(Self.secret))
  }

  @Test("A gateway that runs shows its secrets in no log line, no command line and no answer")
  func secretsAtWork() throws {
    let brokers = ["KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_SSL_ENABLED": "true", "LOG_LEVEL": "trace"]
    let withoutLies = Self.secrets.filter { $0.key != "KAFKA_PROPERTIES" }
    try Gateway.run(withoutLies.merging(brokers) { $1 }) { gateway in
      for path in ["/metrics", "/readyz", "/health"] {
        let answer = try gateway.management("GET", path)
        #expect(!answer.text.contains(Self.secret))
      }
      for process in gateway.process.tree() {
        let line = ProcFile.contents("/proc/\(process.pid)/cmdline") ?? []
        #expect(!String(decoding: line, as: UTF8.self).contains(Self.secret))
      }
      #expect(!gateway.log.isEmpty)
      #expect(!gateway.log.contains(Self.secret))
    }
  }

  @Test("A value from a file named by KEY_FILE counts, and later layers win")
  func layers() throws {
    let directory = try TestDirectory()
    let file = directory.file("rig.yaml")
    let origin = directory.file("origin")
    try "cors: https://file.example\nlongpolling_wait_s: 1\n".write(
      toFile: file, atomically: true, encoding: .utf8)
    try "https://secret-file.example\n".write(toFile: origin, atomically: true, encoding: .utf8)
    let table: [([String: String], [String], String)] = [
      ([:], [], "https://file.example"), (["CORS_FILE": origin], [], "https://secret-file.example"),
      (
        ["CORS": "https://environment.example"], ["--set", "CORS=https://line.example"],
        "https://line.example"
      ),
    ]
    for (environment, arguments, expected) in table {
      try Gateway.run(environment, arguments: ["--config", file] + arguments) { gateway in
        let answer = try gateway.inbound("GET", "/_rig/health", headers: [("origin", expected)])
        #expect(answer["access-control-allow-origin"] == expected)
        let poller = try LongPollClient(gateway, "[]")
        _ = try poller.poll()
        #expect(try poller.poll() == [], "the wait of the file is in force")
      }
    }
  }
}
