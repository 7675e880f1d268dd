// Values: what each form takes and what it refuses.

import Foundation
import Testing

@testable import Settings

@Suite("Configuration values")
struct ValueTests {
  @Test(
    "A value out of its form is refused with what was expected",
    arguments: [
      ("INBOUND_PORT", "65536"), ("INBOUND_PORT", "-1"), ("INBOUND_PORT", "4000.5"), ("INBOUND_PORT", "http"),
      ("API_HTTP_PORT", "0x10"), ("CONNECTION_WORKERS", "0"), ("CONNECTION_WORKERS", "64"),
      ("CORS", "example.com"), ("CORS", "https://a.example/"), ("CORS", "https://a.example/path"),
      ("CORS", "https://a, b"), ("CORS", "https://a.*.example"), ("CORS", "https://*"),
      ("CORS", "https://*a.example"),
      ("CORS", "https://a..example"), ("CORS", "https://user@a.example"), ("CORS", "https://a.example:0"),
      ("CORS", "https://ä.example"),
      ("CORS", "https://a.example\r\nx: y"),
      ("KAFKA_BROKERS", "kafka"), ("KAFKA_BROKERS", "kafka:"), ("KAFKA_BROKERS", "kafka:0"),
      ("KAFKA_BROKERS", ":9092"), ("KAFKA_BROKERS", "a:1,b"), ("KAFKA_BROKERS", "kafka://a:1"),
      ("KAFKA_BROKERS", "::1:9092"), ("KAFKA_SOURCE_TOPICS", "a b"), ("KAFKA_SOURCE_TOPICS", ".."),
      ("KAFKA_SASL", "plain:user"), ("KAFKA_SASL", "scram:user:pass"), ("KAFKA_SASL", "plain::pass"),
      ("KAFKA_SSL_ENABLED", "maybe"), ("KAFKA_PROPERTIES", "a"), ("KAFKA_PROPERTIES", "=1"),
      ("LOG_LEVEL", "loud"), ("LOG_FMT", "xml"), ("EVENT_RING_BYTES", "16777217"),
      ("EVENT_RING_BYTES", "4096"), ("NODE_NAME", "a/b"), ("NODE_NAME", "a b"), ("POSITION_RING_BYTES", "1"),
      ("JWT_USER_FIELD", "user/name"), ("JWT_SESSION_FIELD", "a~b"), ("KAFKA_ENABLED", "maybe"),
      ("JWT_BLACKLIST_DEFAULT_EXPIRY_HOURS", "0"), ("JWT_ALG", "none"), ("REQUEST_LOG", "file"),
      ("REQUEST_LOG", "console,nats"), ("RATE_LIMIT_BURST_SIZE", "0"), ("CONNECTION_LIMIT_CLOSES", "both"),
      ("MAX_CONNECTIONS_PER_USER", "-1"), ("CLOCK_JUMP_DELAY_S", "-1"), ("CLOCK_JUMP_DELAY_S", "86401"),
      ("MAX_RETRY_BODY_BYTES", "-1"), ("MAX_RETRY_BODY_BYTES", "1048577"),
      ("INBOUND_APIS", "public"),
      ("JWT_CLOSE_ON_EXPIRY", "often"), ("KAFKA_SERIALIZER", "xml"),
    ])
  func refused(name: String, value: String) throws {
    let found = mistakes([name: value])
    #expect(found.count == 1)
    #expect(found.first?.hasPrefix("environment \(name): \(name): ") == true, "\(found)")
  }

  @Test("Ports, addresses and topics at the edge of their forms are taken")
  func edges() throws {
    let settings = try load([
      "INBOUND_PORT": "0", "API_HTTP_PORT": "0", "KAFKA_BROKERS": " a:1 , [::1]:65535,",
      "KAFKA_SOURCE_TOPICS": "a.b_c-D9", "CORS": "https://app.example.com:8443", "CONNECTION_WORKERS": "31",
      "CLOCK_JUMP_DELAY_S": "0", "MAX_RETRY_BODY_BYTES": "0",
    ]).settings
    #expect(settings.clockJumpDelaySeconds == 0 && settings.maxRetryBodyBytes == 0)
    #expect(settings.inboundPort == 0)
    #expect(settings.kafkaBrokers == ["a:1", "[::1]:65535"])
    #expect(settings.kafkaSourceTopics == ["a.b_c-D9"])
    #expect(settings.cors == ["https://app.example.com:8443"])
    #expect(settings.connectionWorkers == 31)
  }

  @Test(
    "Log levels and forms have RIG's spellings as well",
    arguments: [("warn", "warning"), ("INFO", "info"), ("debug", "debug"), ("error", "error")])
  func levels(written: String, level: String) throws {
    #expect(try load(["LOG_LEVEL": written]).settings.logLevel == level)
    #expect(try load(["LOG_FMT": "GCL"]).settings.logFormat == "json")
    #expect(try load(["LOG_FMT": "erlang"]).settings.logFormat == "human")
  }

  @Test("A password in KAFKA_SASL may hold colons")
  func sasl() throws {
    let sasl = try load(["KAFKA_SASL": "plain:me:a:b"]).settings.kafkaSASL
    #expect(sasl == KafkaSASL(mechanism: "PLAIN", user: "me", password: Secret("a:b")))
  }

  @Test("Values that contradict each other are named together")
  func contradictions() {
    #expect(
      mistakes(["INBOUND_PORT": "5000", "API_HTTP_PORT": "5000"]).first?.contains("both are 5000") == true)
    #expect(mistakes(["KAFKA_BROKERS": "a:1", "KAFKA_SOURCE_TOPICS": ""]).count == 1)
    #expect(mistakes(["KAFKA_SSL_CERTFILE": "/a"]).count == 1)
    #expect(mistakes(["EVENT_RING_BYTES": "65536"]).first?.contains("expected 16777216 or more") == true)
    #expect(
      mistakes(["EVENT_RING_BYTES": "65536", "STREAMS_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096"])
        .isEmpty)
  }

  @Test func `16.1 KEEPER_TTL_S is longer than WATCHDOG_S, by itself if it isn't set, or 0`() throws {
    #expect(try load([:]).settings.keeperTTLSeconds == 30)
    #expect(try load(["WATCHDOG_S": "3600"]).settings.keeperTTLSeconds == 3_620)
    #expect(try load(["KEEPER_TTL_S": "11"]).settings.keeperTTLSeconds == 11)
    #expect(try load(["KEEPER_TTL_S": "0", "WATCHDOG_S": "60"]).settings.keeperTTLSeconds == 0)
    #expect(
      mistakes(["KEEPER_TTL_S": "60", "WATCHDOG_S": "60"]).first?
        .contains("KEEPER_TTL_S, WATCHDOG_S: 60 and 60; expected KEEPER_TTL_S to be longer, or 0") == true)
    #expect(mistakes(["KEEPER_TTL_S": "-1"]).count == 1)
    #expect(mistakes(["LEDGER_BYTES": "1000"]).count == 1)
    let limits = try load(["LEDGER_BYTES": "1048576"]).settings.limits
    #expect(limits.contains { $0.name == "LEDGER_BYTES" && $0.value == 1_048_576 })
    #expect(limits.contains { $0.name == "KEEPER_TTL_S" && $0.value == 30 })
  }

  @Test func `16.8 WARM_SPARES is 0 to 8, and as the machine's memory allows if it isn't set`() throws {
    let bytes = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    #expect(try load([:]).settings.warmSpares == (bytes >= 4 << 30 ? 1 : 0))
    #expect(try load(["WARM_SPARES": "0"]).settings.warmSpares == 0)
    #expect(try load(["WARM_SPARES": "8"]).settings.warmSpares == 8)
    #expect(mistakes(["WARM_SPARES": "9"]).count == 1)
  }

  @Test("16.7 LINGER_S is ten minutes unless it is set, and shown among the limits")
  func linger() throws {
    #expect(try load([:]).settings.lingerSeconds == 600)
    let limits = try load(["LINGER_S": "7"]).settings.limits
    #expect(limits.contains { $0.name == "LINGER_S" && $0.value == 7 })
    #expect(mistakes(["LINGER_S": "0"]).count == 1 && mistakes(["LINGER_S": "86401"]).count == 1)
  }

  @Test("14.D20 One topic may have events and responses (Azure Event Hubs)")
  func sharedTopic() throws {
    let settings = try load(["KAFKA_BROKERS": "a:1", "PROXY_KAFKA_RESPONSE_TOPICS": "x,rig"]).settings
    #expect(settings.proxyKafkaResponseTopics == ["x", "rig"] && settings.topicsOfResponsesOnly == ["x"])
  }

  @Test("14.C18 An empty KAFKA_USER_FIELD is one: nothing addresses an event")
  func noUserField() throws {
    #expect(try load([:]).settings.kafkaUserField == "user")
    #expect(try load(["KAFKA_USER_FIELD": ""]).settings.kafkaUserField == "")
    #expect(try load(["KAFKA_USER_FIELD": " toUser "]).settings.kafkaUserField == "toUser")
  }

  @Test("14.D20 KAFKA_SERIALIZER=avro is refused as long as it isn't there")
  func avro() throws {
    _ = try load(["KAFKA_SERIALIZER": "json"])
    #expect(
      mistakes(["KAFKA_SERIALIZER": "Avro"]).first?.contains("KAFKA_SERIALIZER: 'Avro' isn't there yet")
        == true)
  }

  @Test("TLS is configured whole or not at all, and its ports count only then")
  func tls() throws {
    let certificates = ["HTTPS_CERTFILE": "/a.pem, /b.pem", "HTTPS_KEYFILE": "/a.key,/b.key"]
    let settings = try load(certificates.merging(["HTTPS_KEYFILE_PASS": "pw"]) { $1 }).settings
    #expect(settings.hasTLS && settings.httpsCertFiles == ["/a.pem", "/b.pem"])
    #expect(settings.httpsKeyFiles == ["/a.key", "/b.key"] && settings.httpsKeyFilePass?.revealed == "pw")
    #expect(settings.inboundHTTPSPort == 4001 && settings.apiHTTPSPort == 4011)
    #expect(try !load(["HTTPS_CERTFILE": ""]).settings.hasTLS)
    for wrong in [
      ["HTTPS_CERTFILE": "/a"], ["HTTPS_KEYFILE": "/a"], ["HTTPS_KEYFILE_PASS": "pw"],
      ["HTTPS_CERTFILE": "/a,/b", "HTTPS_KEYFILE": "/a"],
    ] {
      #expect(mistakes(wrong).count == 1, "\(wrong)")
    }
    let ports = ["INBOUND_PORT": "4001", "API_HTTP_PORT": "4011"]
    #expect(mistakes(ports).isEmpty)
    #expect(mistakes(certificates.merging(ports) { $1 }).count == 2)
  }

  @Test("Settings survive the hand-over to a worker as JSON")
  func coding() throws {
    let settings = try load([
      "KAFKA_SASL": "plain:me:pw", "KAFKA_SSL_KEYFILE_PASS": "pw2", "KAFKA_PROPERTIES": "a=b",
      "EXTRACTORS": #"{"t":{"f":{"event":{"json_pointer":"/a~1b/0"}}}}"#,
    ]).settings
    let encoded = try JSONEncoder().encode(settings)
    #expect(try Settings(encoded: encoded) == settings)
  }

  @Test(
    "15.3 Settings of another release: those that it doesn't have are at their defaults, others are passed over"
  )
  func otherRelease() throws {
    #expect(try Settings(encoded: Data("{}".utf8)) == Settings())
    let settings = try load([
      "MAX_EVENT_BYTES": "77777", "JWT_SECRET_KEY": "secret",
      "EXTRACTORS": #"{"t":{"f":{"event":{"json_pointer":"/a"}}}}"#,
    ]).settings
    let all = try JSONEncoder().encode(settings)
    var members = try #require(try JSONSerialization.jsonObject(with: all) as? [String: Any])
    members["ofTheNextRelease"] = ["a": [1, 2.5, true, "x"]]
    #expect(try Settings(encoded: JSONSerialization.data(withJSONObject: members)) == settings)
    for key in members.keys {
      var without = members
      without[key] = nil
      let read = try Settings(encoded: JSONSerialization.data(withJSONObject: without))
      #expect(key != "maxEventBytes" || read.maxEventBytes == Settings().maxEventBytes)
      #expect(key != "jwtSecretKey" || read.jwtSecretKey == nil)
      #expect(key == "maxEventBytes" || read.maxEventBytes == 77_777)
    }
    let extractor = #"{"extractors":{"byType":{"t":{"f":{"eventPointer":["a"],"new":1}}}}}"#
    let read = try Settings(encoded: Data(extractor.utf8))
    #expect(read.extractors.byType["t"]?["f"] == Extractor(eventPointer: ["a"]))
    for bad in ["", "[]", "7", #"{"maxEventBytes":"many"}"#, #"{"cors":null}"#] {
      #expect(throws: (any Error).self) { try Settings(encoded: Data(bad.utf8)) }
    }
  }
}
