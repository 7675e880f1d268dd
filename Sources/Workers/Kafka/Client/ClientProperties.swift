// Settings as properties of librdkafka. Pure: the mapping is one list, in the order in which it is applied.
//
// Values may be secrets: nothing in here, nor in the errors, ever shows one. KAFKA_PROPERTIES come last and
// win, but for the few on which "nothing lost, nothing repeated" depends.

import Settings

/// One property of librdkafka.
struct ClientProperty: Equatable, Sendable {
  let name: String
  let value: String
}

/// A property that must not be set; the text names it and says why.
struct ClientPropertyRefused: Error, Equatable, CustomStringConvertible {
  let description: String
}

enum ClientProperties {
  /// Kilobytes of records that librdkafka fetches ahead, all partitions together. It stops fetching there
  /// when the ring is full and nobody takes them.
  static let queuedKilobytes = 16 * 1024
  /// Bytes of one answer to a fetch, by which `queuedKilobytes` may be exceeded per broker.
  static let fetchBytes = 4 * 1024 * 1024
  /// Milliseconds between attempts to connect, at most: an outage is noticed to be over within this time.
  static let reconnectMilliseconds = 2_000
  /// Milliseconds that a commit waits for the group's coordinator before it fails (and is tried again with
  /// newer offsets); closing a client waits as long for one that is under way. Nothing else: this client is
  /// no member of the group.
  static let commitPatienceMilliseconds = 6_000

  /// Milliseconds that what is known of the topics counts, as many as there may be: asking anew looks like a sign.
  static let metadataMilliseconds = 86_400_000

  /// What this worker depends on: name, value, why it is not negotiable.
  private static let fixed: [(name: String, value: String, why: String)] = [
    (
      "enable.auto.commit", "false",
      "offsets are committed when the connection workers have passed the records"
    ),
    (
      "enable.auto.offset.store", "false",
      "offsets are committed when the connection workers have passed the records"
    ),
    ("auto.offset.reset", "error", "the start of a partition is decided by the gateway"),
    ("log.queue", "true", "log lines are taken from a queue"),
  ]
  /// Other names of these, and what has a setting of its own.
  private static let refused: [String: String] = [
    "auto.commit.enable": "offsets are committed when the connection workers have passed the records",
    "auto.commit.interval.ms": "offsets are committed when the connection workers have passed the records",
    "group.id": "KAFKATOFILTER_KAFKA_GROUP_ID sets it",
    "bootstrap.servers": "KAFKA_BROKERS sets it",
    "metadata.broker.list": "KAFKA_BROKERS sets it",
  ]

  /// All properties of the consumer, in the order in which they are to be set.
  static func consumer(_ settings: Settings) throws(ClientPropertyRefused) -> [ClientProperty] {
    var list: [ClientProperty] = []
    func add(_ name: String, _ value: String) { list.append(ClientProperty(name: name, value: value)) }

    add("bootstrap.servers", settings.kafkaBrokers.joined(separator: ","))
    add("group.id", settings.kafkaGroupOfNode)
    add("client.id", "rig-streams")
    // The scout looks at the topics, more often and through another client: an answer to this one is a sign of a change (BrokerSigns).
    add("topic.metadata.refresh.interval.ms", "-1")
    add("metadata.max.age.ms", String(metadataMilliseconds))
    add("queued.max.messages.kbytes", String(queuedKilobytes))
    add("fetch.max.bytes", String(fetchBytes))
    add("reconnect.backoff.max.ms", String(reconnectMilliseconds))
    add("session.timeout.ms", String(commitPatienceMilliseconds))
    add("socket.keepalive.enable", "true")
    addSecurity(settings, add)
    for property in fixed { add(property.name, property.value) }

    for name in settings.kafkaProperties.keys.sorted() {
      guard let value = settings.kafkaProperties[name] else { continue }
      if let why = refused[name] ?? fixed.first(where: { $0.name == name })?.why {
        throw ClientPropertyRefused(description: "KAFKA_PROPERTIES must not set \(name): \(why)")
      }
      add(name, value)
    }
    return list
  }

  /// Records and kilobytes that wait for the brokers in this process; more are refused.
  static let queuedRecords = 20_000
  static let queuedRecordKilobytes = 64 * 1024
  /// Milliseconds that a record waits for others to go with it.
  static let lingerMilliseconds = 1

  /// What the producer depends on.
  private static let fixedOfProducer: [(name: String, value: String, why: String)] = [
    ("acks", "all", "a request is answered when the brokers have its record"),
    ("enable.idempotence", "true", "a record that is sent again must not be written twice"),
    ("log.queue", "true", "log lines are taken from a queue"),
  ]
  private static let refusedOfProducer: [String: String] = [
    "request.required.acks": "a request is answered when the brokers have its record",
    "delivery.timeout.ms": "KAFKA_PUBLISH_TIMEOUT_MS sets it",
    "message.timeout.ms": "KAFKA_PUBLISH_TIMEOUT_MS sets it",
    "dr_cb": "the gateway's own", "dr_msg_cb": "the gateway's own",
  ]

  /// All properties of the producer, in the order in which they are to be set.
  ///
  /// - Parameter maximumBytes: of one record.
  static func producer(_ settings: Settings, maximumBytes: Int) throws(ClientPropertyRefused)
    -> [ClientProperty]
  {
    var list: [ClientProperty] = []
    func add(_ name: String, _ value: String) { list.append(ClientProperty(name: name, value: value)) }

    add("bootstrap.servers", settings.kafkaBrokers.joined(separator: ","))
    add("client.id", "rig-streams")
    add("queue.buffering.max.messages", String(queuedRecords))
    add("queue.buffering.max.kbytes", String(queuedRecordKilobytes))
    add("linger.ms", String(min(lingerMilliseconds, settings.kafkaPublishTimeoutMs)))
    add("message.timeout.ms", String(settings.kafkaPublishTimeoutMs))
    add("message.max.bytes", String(max(1_000, min(maximumBytes, 1_000_000_000))))
    // As the Java client does it, so that a key has the same partition whoever produces.
    add("partitioner", "murmur2_random")
    add("reconnect.backoff.max.ms", String(reconnectMilliseconds))
    add("socket.keepalive.enable", "true")
    addSecurity(settings, add)
    for property in fixedOfProducer { add(property.name, property.value) }

    for name in settings.kafkaProperties.keys.sorted() {
      guard let value = settings.kafkaProperties[name] else { continue }
      let why =
        refused[name] ?? refusedOfProducer[name] ?? fixedOfProducer.first { $0.name == name }?.why
      if let why {
        throw ClientPropertyRefused(description: "KAFKA_PROPERTIES must not set \(name): \(why)")
      }
      add(name, value)
    }
    return list
  }

  private static func addSecurity(_ settings: Settings, _ add: (String, String) -> Void) {
    let `protocol` =
      switch (settings.kafkaSASL != nil, settings.kafkaSSLEnabled) {
      case (false, false): "plaintext"
      case (false, true): "ssl"
      case (true, false): "sasl_plaintext"
      case (true, true): "sasl_ssl"
      }
    add("security.protocol", `protocol`)
    if let sasl = settings.kafkaSASL {
      add("sasl.mechanism", sasl.mechanism)
      add("sasl.username", sasl.user)
      add("sasl.password", sasl.password.revealed)
    }
    guard settings.kafkaSSLEnabled else { return }
    let files = [
      ("ssl.ca.location", settings.kafkaSSLCACertFile),
      ("ssl.certificate.location", settings.kafkaSSLCertFile),
      ("ssl.key.location", settings.kafkaSSLKeyFile),
    ]
    for (name, path) in files where !path.isEmpty { add(name, path) }
    if let password = settings.kafkaSSLKeyFilePass { add("ssl.key.password", password.revealed) }
  }
}
