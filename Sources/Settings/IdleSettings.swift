// Keys that were set and do nothing, because another one that they belong to isn't: each is accepted, and said at start and by
// --check-config, never passed over in silence.

extension Settings {
  /// A text for each group of such keys.
  ///
  /// - Parameters:
  ///   - given: names of the keys that some layer has set.
  ///   - brokers: as they were set.
  func idle(_ given: Set<String>, brokers: [String]) -> [String] {
    let hasKeys = jwtSecretKey != nil || !jwtKeySets.isEmpty
    let withoutBrokers: Set = ["KAFKA_BROKERS", "KAFKA_ENABLED", "KAFKA_USER_FIELD"]
    let ofKafka = given.filter {
      $0.hasPrefix("KAFKA") && !withoutBrokers.contains($0) || $0.hasPrefix("PROXY_KAFKA")
    }
    let groups: [(isIdle: Bool, names: [String], why: String)] = [
      (
        !kafkaBrokers.isEmpty && !kafkaSSLEnabled,
        ["KAFKA_SSL_CA_CERTFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE", "KAFKA_SSL_KEYFILE_PASS"],
        "without KAFKA_SSL_ENABLED=true: THE BROKERS ARE SPOKEN TO WITHOUT TLS"
      ),
      (
        kafkaEnabled == false && !brokers.isEmpty, ["KAFKA_BROKERS"],
        "with KAFKA_ENABLED=false: there is no Kafka"
      ),
      (
        kafkaBrokers.isEmpty, ofKafka.sorted(),
        kafkaEnabled == false
          ? "with KAFKA_ENABLED=false: there is no Kafka" : "without KAFKA_BROKERS: there is no Kafka"
      ),
      (
        !hasTLS, ["INBOUND_HTTPS_PORT", "API_HTTPS_PORT"],
        "without HTTPS_CERTFILE and HTTPS_KEYFILE: nothing listens there"
      ),
      (
        !hasKeys,
        ["JWT_ALG", "JWT_AUD", "JWT_ISS", "JWT_LEEWAY_S"],
        "without JWT_SECRET_KEY or JWT_JWKS: every token is refused"
      ),
      (
        !rateLimitEnabled, ["RATE_LIMIT_AVG_RATE_PER_SEC", "RATE_LIMIT_BURST_SIZE", "RATE_LIMIT_PER_IP"],
        "without RATE_LIMIT_ENABLED=true: nothing is limited"
      ),
      (
        !requestLog.contains("kafka"), ["REQUEST_LOG_TOPIC"],
        "without kafka in REQUEST_LOG: nothing is sent there"
      ),
    ]
    return groups.compactMap { group in
      let names = group.isIdle ? group.names.filter(given.contains) : []
      guard !names.isEmpty else { return nil }
      return "\(names.joined(separator: ", ")): set, but of no effect \(group.why)"
    }
  }
}
