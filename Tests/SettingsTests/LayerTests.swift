// The layers: which one wins, what is unknown, and where a mistake is said to be.

import Testing

@testable import Settings

@Suite("Configuration layers")
struct LayerTests {
  @Test("Without any layer the defaults of the contract are in effect")
  func defaults() throws {
    let settings = try load().settings
    #expect(settings.inboundPort == 4000)
    #expect(settings.apiHTTPPort == 4010)
    #expect(settings.cors == ["*"])
    #expect(settings.kafkaBrokers.isEmpty)
    #expect(settings.kafkaSourceTopics == ["rig"])
    #expect(settings.maxConnectionsPerMinute == 5000)
    #expect(settings.watchdogSeconds == 10)
    #expect(settings.longpollingTimeoutSeconds == 300)
    #expect(settings.connectionWorkers >= 1)
    #expect(try load().warnings.isEmpty)
    #expect(try load().action == .run)
  }

  @Test("The command line wins over the environment, which wins over the file, which wins over the defaults")
  func precedence() throws {
    try withFile("watchdog_s: 20\ndrain_timeout_s: 21\nheartbeat_s: 22\n") { path in
      let environment = ["DRAIN_TIMEOUT_S": "31", "HEARTBEAT_S": "32"]
      let settings = try load(environment, ["--config", path, "--set", "HEARTBEAT_S=42"]).settings
      #expect(settings.watchdogSeconds == 20)
      #expect(settings.drainTimeoutSeconds == 31)
      #expect(settings.heartbeatSeconds == 42)
      #expect(settings.restartIntensity == 5)
    }
  }

  @Test("A file may be YAML or JSON, with names in either case")
  func fileForms() throws {
    let yaml = "# ports\ninbound_port: 5000\nKAFKA_BROKERS: [a:1, 'b:2']\nkafka-source-topics: x,y\n"
    let json = """
      {
      \t"inbound_port": 5000, "KAFKA_BROKERS": ["a:1", "b:2"],
      \t"kafka-source-topics": "x,y"
      }
      """
    for (name, text) in [("rig.yaml", yaml), ("rig.json", json)] {
      try withFile(text, named: name) { path in
        let settings = try load([:], ["--config=\(path)"]).settings
        #expect(settings.inboundPort == 5000)
        #expect(settings.kafkaBrokers == ["a:1", "b:2"])
        #expect(settings.kafkaSourceTopics == ["x", "y"])
      }
    }
  }

  @Test("An empty file and a file of comments change nothing")
  func emptyFile() throws {
    let defaults = try load([:]).settings
    for text in ["", "# nothing\n", "---\n", "{}"] {
      try withFile(text) { path in
        let settings = try load([:], ["--config", path]).settings
        #expect(settings == defaults)
      }
    }
  }

  @Test("An unknown key in a file is a mistake with line, column and the nearest key")
  func unknownKeyInFile() throws {
    try withFile("cors: '*'\n\ninbound_prot: 4000\n") { path in
      #expect(
        mistakes([:], ["--config", path]) == [
          "\(path):3:1: unknown key 'inbound_prot'; did you mean INBOUND_PORT?"
        ])
    }
  }

  @Test("A wrong value in a file is named with its line")
  func wrongValueInFile() throws {
    try withFile("cors: '*'\ninbound_port: 70000\nkafka_brokers: {a: 1}\n") { path in
      let found = mistakes([:], ["--config", path])
      #expect(found.count == 2)
      #expect(
        found.first
          == "\(path):2:1: INBOUND_PORT: '70000' is out of range; expected a whole number from 0 to 65535")
      #expect(found.last?.hasPrefix("\(path):3:") == true)
    }
  }

  @Test("A file that is no YAML is refused with the line of the first error and without its text")
  func brokenFile() throws {
    try withFile("cors: '*'\njwt_secret_key: \"hunter2\n") { path in
      let found = mistakes([:], ["--config", path])
      #expect(found.count == 1)
      #expect(found.first?.hasPrefix("\(path):") == true)
      #expect(found.first?.contains("hunter2") == false)
    }
  }

  @Test(
    "The same key twice is a mistake, under whichever names", arguments: ["port: 1\n", "inbound_port: 1\n"])
  func twice(line: String) throws {
    try withFile("INBOUND_PORT: 4001\n" + line) { path in
      #expect(mistakes([:], ["--config", path]).count == 1)
    }
  }

  @Test("A file that isn't there is a mistake")
  func missingFile() {
    let found = mistakes([:], ["--config", "/nonexistent/rig.yaml"])
    #expect(found == ["--config: '/nonexistent/rig.yaml' can't be read: no such file"])
  }

  @Test("The environment's other variables are ignored, but one that looks misspelt is warned about")
  func misspeltEnvironment() throws {
    let loaded = try load(["HOME": "/root", "PATH": "/bin", "KAFKA_BROKER": "a:1", "INBUOND_PORT": "1"])
    #expect(
      loaded.warnings == [
        "environment INBUOND_PORT: not a key, ignored; did you mean INBOUND_PORT?",
        "environment KAFKA_BROKER: not a key, ignored; did you mean KAFKA_BROKERS?",
      ])
  }

  @Test(
    "14.D19 What RIG knew and this gateway doesn't is named with what to use instead; in a file it is a mistake"
  )
  func formerNames() throws {
    for (name, words) in [
      ("NATS_SERVERS", "NATS"), ("KINESIS_ENABLED", "Kinesis"), ("KAFKA_SCHEMA_REGISTRY_HOST", "Avro"),
      ("JAEGER_HOST", "traceparent"), ("NODE_COOKIE", "nodes"), ("DISCOVERY_TYPE", "nodes"),
      ("API_PORT", "API_HTTP_PORT"), ("PROMETHEUS_METRICS_ENABLED", "/metrics"),
    ] {
      let said = try load([name: "x"]).warnings
      #expect(said.count == 1)
      #expect(
        said.first?.hasPrefix("environment \(name): ") == true && said.first?.contains(words) == true,
        "\(said)")
      #expect(try load([name: ""]).warnings.isEmpty)
      try withFile("\(name.lowercased()): x\n") { path in
        let found = mistakes([:], ["--config", path])
        #expect(found.count == 1 && found.first?.contains(words) == true, "\(found)")
      }
    }
    #expect(FormerNames.advice.keys.allSatisfy { SettingKey.byName[$0] == nil })
  }

  @Test("14.D19 Older names of what there is are accepted, and the checks in any case")
  func olderNames() throws {
    let settings = try load([
      "MESSAGE_USER_FIELD": "to", "PROXY_KAFKA_REQUEST_TIMEOUT": "7", "SUBSCRIPTION_CHECK": "NO_CHECK",
      "SUBMISSION_CHECK": "JWT_Validation",
    ]).settings
    #expect(settings.kafkaUserField == "to" && settings.proxyKafkaResponseTimeoutMs == 7)
    #expect(settings.subscriptionCheck == .none && settings.submissionCheck == .token)
  }

  @Test("14.D19 What is set and does nothing without another key is said, naming both")
  func idle() throws {
    let brokers = ["KAFKA_BROKERS": "a:1"]
    let cases: [([String: String], String, String)] = [
      (
        brokers.merging(["KAFKA_SSL_CA_CERTFILE": "/ca"]) { $1 }, "KAFKA_SSL_CA_CERTFILE", "KAFKA_SSL_ENABLED"
      ),
      (["KAFKA_SOURCE_TOPICS": "a"], "KAFKA_SOURCE_TOPICS", "KAFKA_BROKERS"),
      (["INBOUND_HTTPS_PORT": "1"], "INBOUND_HTTPS_PORT", "HTTPS_CERTFILE"),
      (["JWT_AUD": "a", "JWT_ALG": "RS256"], "JWT_ALG, JWT_AUD", "JWT_JWKS"),
      (["RATE_LIMIT_BURST_SIZE": "1"], "RATE_LIMIT_BURST_SIZE", "RATE_LIMIT_ENABLED"),
      (["REQUEST_LOG_TOPIC": "a"], "REQUEST_LOG_TOPIC", "REQUEST_LOG"),
    ]
    for (environment, named, needed) in cases {
      let said = try load(environment).warnings
      #expect(said.count == 1, "\(said)")
      #expect(
        said.first?.hasPrefix("\(named): set") == true && said.first?.contains(needed) == true, "\(said)")
    }
    #expect(try load(brokers.merging(["KAFKA_SOURCE_TOPICS": "a"]) { $1 }).warnings.isEmpty)
  }

  @Test(
    "14.D19 A TCP_USER_TIMEOUT_S that would cut slow clients off before SLOW_CONSUMER_S lets them be told is said",
    arguments: [
      (["TCP_USER_TIMEOUT_S": "30"], true), (["TCP_USER_TIMEOUT_S": "31"], false),
      (["SLOW_CONSUMER_S": "120"], true), (["SLOW_CONSUMER_S": "119"], false),
      (["SLOW_CONSUMER_S": "10", "TCP_USER_TIMEOUT_S": "5"], true), ([:], false),
    ])
  func untoldEnds(_ environment: [String: String], isSaid: Bool) throws {
    let said = try load(environment).warnings
    #expect(said.count == (isSaid ? 1 : 0), "\(said)")
    #expect(said.allSatisfy { $0.hasPrefix("TCP_USER_TIMEOUT_S, SLOW_CONSUMER_S: ") }, "\(said)")
  }

  @Test("An empty environment variable counts as not set, except for a list")
  func emptyValues() throws {
    let settings = try load(["INBOUND_PORT": "", "KAFKATOFILTER_KAFKA_GROUP_ID": ""]).settings
    #expect(settings.inboundPort == 4000)
    #expect(settings.kafkaGroupID == "rig-kafka-to-filter")
    try withFile("kafka_brokers: a:1\n") { path in
      let settings = try load(["KAFKA_BROKERS": ""], ["--config", path]).settings
      #expect(settings.kafkaBrokers.isEmpty)
    }
  }

  @Test("An empty variable doesn't contradict another name of the same key")
  func emptyAlias() throws {
    #expect(try load(["INBOUND_PORT": "4444", "PORT": ""]).settings.inboundPort == 4444)
    try withFile("plain:me:x", named: "sasl") { path in
      let settings = try load(["KAFKA_SASL": "", "KAFKA_SASL_FILE": path]).settings
      #expect(settings.kafkaSASL?.user == "me")
    }
    #expect(try load(["KAFKA_SASL_FILE": ""]).settings.kafkaSASL == nil)
  }

  @Test("The place of a mistake is right in a file with the line breaks of Windows")
  func windowsLines() throws {
    try withFile("INBOUND_PORT: 4001\r\nHOST: \"a\r\n") { windows in
      try withFile("INBOUND_PORT: 4001\nHOST: \"a\n") { unix in
        let found = [windows, unix].map { path in
          mistakes([:], ["--config", path]).map { $0.replacing(path, with: "") }
        }
        #expect(found[0] == found[1] && found[0].count == 1)
      }
    }
  }

  @Test("RIG 1's names are accepted")
  func oldNames() throws {
    let settings = try load(["PORT": "4444", "KAFKA_HOSTS": "k:9092"]).settings
    #expect(settings.inboundPort == 4444)
    #expect(settings.kafkaBrokers == ["k:9092"])
  }

  @Test("14.D20 RIG 1: the name of a claim is a pointer to it")
  func claimNames() throws {
    let settings = try load([
      "JWT_USER_FIELD": "username", "JWT_ROLES_FIELD": "role", "JWT_SESSION_FIELD": "/jti",
    ]).settings
    #expect(settings.jwtUserPointer == ["username"] && settings.jwtRolesPointer == ["role"])
    #expect(settings.jwtSessionPointer == ["jti"])
    #expect(mistakes(["JWT_USER_FIELD": "person/name"]).first?.contains("must begin with '/'") == true)
  }

  @Test("14.D20 RIG 1: an empty name of a key doesn't contradict another one, whichever comes first")
  func emptyNames() throws {
    let both = try load(["KAFKA_BROKERS": "", "KAFKA_HOSTS": "k:9092"]).settings
    #expect(both.kafkaBrokers == ["k:9092"])
    #expect(try load(["KAFKA_BROKERS": "k:9092", "KAFKA_HOSTS": ""]).settings.kafkaBrokers == ["k:9092"])
    #expect(try load(["KAFKA_USER_FIELD": "to", "MESSAGE_USER_FIELD": " "]).settings.kafkaUserField == "to")
    #expect(mistakes(["KAFKA_BROKERS": "a:1", "KAFKA_HOSTS": "b:1"]).count == 1)
    #expect(mistakes(["KAFKA_BROKERS": "nonsense", "KAFKA_HOSTS": ""]).count == 1)
  }

  @Test("14.D20 RIG 1: KAFKA_ENABLED decides whether there is Kafka, where it is set")
  func kafkaEnabled() throws {
    let off = try load(["KAFKA_ENABLED": "false", "KAFKA_HOSTS": "k:9092", "KAFKA_SOURCE_TOPICS": "a"])
    #expect(off.settings.kafkaBrokers.isEmpty)
    #expect(
      off.warnings.count == 2 && off.warnings.allSatisfy { $0.contains("KAFKA_ENABLED=false") },
      "\(off.warnings)")
    let on = try load(["KAFKA_ENABLED": "true", "KAFKA_HOSTS": "k:9092"])
    #expect(on.settings.kafkaBrokers == ["k:9092"] && on.warnings.isEmpty)
    #expect(mistakes(["KAFKA_ENABLED": "true"]).first?.hasPrefix("KAFKA_ENABLED, KAFKA_BROKERS: ") == true)
    #expect(
      mistakes(["KAFKA_ENABLED": "false", "KAFKA_HOSTS": "k:1", "REQUEST_LOG": "kafka"]).first?.contains(
        "KAFKA_ENABLED is false") == true)
    #expect(try load(["KAFKA_ENABLED": "false"]).warnings.isEmpty)
  }

  @Test("14.D20 RIG 1: KAFKA_CONSUMER_GROUP, JWT_BLACKLIST_DEFAULT_EXPIRY_HOURS and SESSION_ROLE")
  func variablesOfRIG1() throws {
    let set = try load([
      "KAFKA_CONSUMER_GROUP": "rig", "KAFKA_HOSTS": "k:1", "JWT_BLACKLIST_DEFAULT_EXPIRY_HOURS": "5",
    ])
    #expect(set.settings.kafkaGroupID == "rig" && set.settings.jwtBlacklistDefaultExpiryHours == 5)
    #expect(set.settings.sessionRole == nil && set.warnings.isEmpty)
    #expect(try load().settings.jwtBlacklistDefaultExpiryHours == 1)
    #expect(try load(["SESSION_ROLE": ""]).settings.sessionRole == "")
    #expect(try load(["SESSION_ROLE": "agent"]).settings.sessionRole == "agent")
  }

  @Test("Every mistake of every layer is reported at once, in the order of the layers")
  func allMistakes() throws {
    try withFile("nonsense_key_xyz: 1\n") { path in
      let found = mistakes(["INBOUND_PORT": "x"], ["--config", path, "--set", "WATCHDOG_S=0", "--wat"])
      #expect(found.count == 4)
      #expect(found.map { $0.prefix(5) } == ["--wat", path.prefix(5), "envir", "--set"])
    }
  }

  @Test("A key without effect yet is accepted with a warning, and its value is still checked")
  func notUsedYet() throws {
    #expect(
      try load(["PROBATION_S": "2"]).warnings
        == [
          "environment PROBATION_S: PROBATION_S is accepted, but has no effect in this release"
        ])
    #expect(mistakes(["PROBATION_S": "many"]).count == 1)
  }

  @Test("A service is named by its URL")
  func services() throws {
    let check = try load(["SUBMISSION_CHECK": "https://auth.example.com:8443/a?b=c"]).settings
    #expect(check.submissionCheck == .service(url: "https://auth.example.com:8443/a?b=c"))
    #expect(try load(["SUBSCRIPTION_CHECK": "http://[::1]/"]).settings.subscriptionCheck.url != nil)
    #expect(try load(["SUBSCRIPTION_CHECK": "jwt_validation"]).settings.subscriptionCheck.url == nil)
  }

  @Test("A check or token that this release can't enforce is refused, not ignored")
  func failClosed() {
    #expect(mistakes(["SUBSCRIPTION_CHECK": "jwt-validation"]).count == 1)
    for url in [
      "ftp://auth/check", "http://", "http:///check", "http://auth:0/", "http://auth:65536/",
      "http://auth/a b",
      "https://auth/#part", "https://user:secret@auth/", "http://auth/\r\nx: y",
    ] {
      for key in ["SUBMISSION_CHECK", "SUBSCRIPTION_CHECK", "JWT_JWKS"] {
        let found = mistakes([key: url])
        #expect(found.count == 1, "\(key) \(url)")
        #expect(!found.joined().contains("secret"))
      }
    }
    #expect(mistakes(["JWT_ALG": "HS256,none"]).count == 1)
    #expect(mistakes(["JWT_SESSION_FIELD": "a/jti"]).count == 1)
    for token in [
      "secret", "fifteen-letters", "sixteen letters!", "ünverkennbar-lang",
      String(repeating: "a", count: 513),
    ] {
      #expect(mistakes(["MANAGEMENT_TOKEN": token]).count == 1, "\(token)")
    }
    #expect(mistakes(["MANAGEMENT_TOKEN": "sixteen-letters="]).isEmpty)
    #expect(mistakes(["SUBSCRIPTION_CHECK": "no_check", "SUBMISSION_CHECK": "jwt_validation"]).isEmpty)
    #expect(mistakes(["TRUSTED_PROXIES": "10.0.0.1, 10.0.0.0/8, ::1, 2001:db8::/32"]).isEmpty)
    for network in ["10.0.0/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "::1/129", "localhost", "/8"] {
      #expect(mistakes(["TRUSTED_PROXIES": "10.0.0.1,\(network)"]).count == 1, "\(network)")
    }
    #expect(mistakes(["JWT_ALG": "RS256, ES256", "JWT_JWKS": "/etc/rig/jwks.json"]).isEmpty)
  }
}
