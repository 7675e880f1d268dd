import Settings
import Testing

@testable import Kafka

@Suite("Settings as properties of librdkafka")
struct ClientPropertiesTests {
  private func settings(_ change: (inout Settings) -> Void = { _ in }) -> Settings {
    var settings = Settings()
    settings.kafkaBrokers = ["one:9092", "two:9093"]
    settings.kafkaGroupID = "group"
    change(&settings)
    return settings
  }

  /// The value that wins.
  private func value(_ name: String, _ settings: Settings) throws -> String? {
    try ClientProperties.consumer(settings).last { $0.name == name }?.value
  }

  @Test("what nothing-lost depends on is always set, and librdkafka accepts the whole list")
  func defaults() throws {
    let list = try ClientProperties.consumer(settings())
    let values = Dictionary(list.map { ($0.name, $0.value) }) { _, last in last }
    #expect(values["bootstrap.servers"] == "one:9092,two:9093")
    #expect(values["group.id"] == "group")
    #expect(values["enable.auto.commit"] == "false")
    #expect(values["enable.auto.offset.store"] == "false")
    #expect(values["auto.offset.reset"] == "error")
    #expect(values["security.protocol"] == "plaintext")
    #expect(values["queued.max.messages.kbytes"] == "16384")
    #expect(!list.contains { $0.name.hasPrefix("sasl.") || $0.name.hasPrefix("ssl.") })
    try KafkaConsumer.check(list)
  }

  @Test(
    "14.E24 a node among several commits under a group of its own, one that is alone under the group as it is"
  )
  func groupOfNode() throws {
    #expect(try value("group.id", settings { $0.nodeName = "eu-1" }) == "group.eu-1")
    #expect(try value("group.id", settings()) == "group")
  }

  @Test("the producer's list is accepted too; what an acknowledgement depends on can't be changed")
  func producer() throws {
    let list = try ClientProperties.producer(
      settings {
        $0.kafkaPublishTimeoutMs = 1_234
        $0.kafkaSSLEnabled = true
        $0.kafkaProperties = ["linger.ms": "7", "fetch.wait.max.ms": "20"]
      }, maximumBytes: 2_000_000)
    let values = Dictionary(list.map { ($0.name, $0.value) }) { _, last in last }
    #expect(values["acks"] == "all" && values["enable.idempotence"] == "true")
    #expect(values["message.timeout.ms"] == "1234" && values["linger.ms"] == "7")
    #expect(values["security.protocol"] == "ssl" && values["message.max.bytes"] == "2000000")
    try KafkaConsumer.check(list)
    for name in [
      "acks", "request.required.acks", "enable.idempotence", "delivery.timeout.ms", "message.timeout.ms",
    ] {
      #expect(throws: ClientPropertyRefused.self, "\(name)") {
        _ = try ClientProperties.producer(settings { $0.kafkaProperties = [name: "1"] }, maximumBytes: 1_000)
      }
    }
  }

  @Test(
    "the protocol follows from credentials and TLS",
    arguments: [
      (false, false, "plaintext"), (false, true, "ssl"), (true, false, "sasl_plaintext"),
      (true, true, "sasl_ssl"),
    ])
  func securityProtocol(sasl: Bool, ssl: Bool, expected: String) throws {
    let settings = settings {
      if sasl { $0.kafkaSASL = KafkaSASL(mechanism: "PLAIN", user: "u", password: Secret("p")) }
      $0.kafkaSSLEnabled = ssl
    }
    #expect(try value("security.protocol", settings) == expected)
    try KafkaConsumer.check(ClientProperties.consumer(settings))
  }

  @Test("credentials and files are passed on, files only with TLS and only those that are set")
  func credentials() throws {
    var all = settings {
      $0.kafkaSASL = KafkaSASL(mechanism: "PLAIN", user: "user", password: Secret("pass"))
      $0.kafkaSSLEnabled = true
      $0.kafkaSSLCACertFile = "/ca.pem"
      $0.kafkaSSLCertFile = "/cert.pem"
      $0.kafkaSSLKeyFile = "/key.pem"
      $0.kafkaSSLKeyFilePass = Secret("key pass")
    }
    let expected = [
      "sasl.mechanism": "PLAIN", "sasl.username": "user", "sasl.password": "pass",
      "ssl.ca.location": "/ca.pem",
      "ssl.certificate.location": "/cert.pem", "ssl.key.location": "/key.pem", "ssl.key.password": "key pass",
    ]
    for (name, text) in expected { #expect(try value(name, all) == text) }
    all.kafkaSSLCertFile = ""
    #expect(try value("ssl.certificate.location", all) == nil)
    all.kafkaSSLEnabled = false
    #expect(try value("ssl.key.password", all) == nil)
  }

  @Test("properties of the operator win over ours")
  func overriding() throws {
    let settings = settings {
      $0.kafkaProperties = ["fetch.max.bytes": "2000000", "fetch.wait.max.ms": "20", "client.id": "other"]
    }
    #expect(try value("fetch.max.bytes", settings) == "2000000")
    #expect(try value("fetch.wait.max.ms", settings) == "20")
    #expect(try value("client.id", settings) == "other")
    try KafkaConsumer.check(ClientProperties.consumer(settings))
  }

  @Test(
    "properties on which correctness depends are refused by name",
    arguments: [
      "enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "auto.offset.reset", "group.id",
      "bootstrap.servers", "log.queue",
    ])
  func refused(name: String) {
    let settings = settings { $0.kafkaProperties = [name: "true"] }
    let error = #expect(throws: ClientPropertyRefused.self) { try ClientProperties.consumer(settings) }
    #expect(error?.description.contains(name) == true)
  }

  @Test("a value that librdkafka refuses is named by its property and never shown")
  func wrongValue() throws {
    let wrong = [("socket.keepalive.enable", "hunter2"), ("no.such.property", "hunter2")]
    for (name, text) in wrong {
      let list = try ClientProperties.consumer(settings { $0.kafkaProperties = [name: text] })
      let error = #expect(throws: KafkaError.self) { try KafkaConsumer.check(list) }
      #expect(error?.description.contains(name) == true)
      #expect(error?.description.contains("hunter2") == false)
    }
  }
}
