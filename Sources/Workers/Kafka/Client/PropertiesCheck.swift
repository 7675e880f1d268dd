// What the streams worker says of the configuration: properties of librdkafka, the files that these name, and the read positions in
// STATE_DIR.

import CRdKafka
import Glibc
import Kit
import Settings

/// A property that no restart repairs.
struct UnusableProperties: ConfigurationFault, CustomStringConvertible {
  let description: String
}

enum PropertiesCheck {
  /// Throws what librdkafka, or this worker, refuses. Files aren't looked at: they may come.
  static func require(_ settings: Settings) throws(UnusableProperties) {
    do {
      try KafkaConsumer.check(ClientProperties.consumer(settings))
      try KafkaConsumer.check(ClientProperties.producer(settings, maximumBytes: 1_000_000))
    } catch {
      throw UnusableProperties(description: "\(error)")
    }
  }

  static func findings(_ settings: Settings) -> ConfigurationFindings {
    var found = ConfigurationFindings()
    guard !settings.kafkaBrokers.isEmpty else { return found }
    let unreadableFiles = settings.kafkaSSLEnabled ? unreadable(settings) : []
    found.mistakes += unreadableFiles
    if !settings.stateDir.isEmpty { found.judge { try PositionFile(directory: settings.stateDir).read() } }
    // A client would say the same of such a file, without its name.
    guard unreadableFiles.isEmpty else { return found }
    found.judge { try makeClient(RD_KAFKA_CONSUMER, try ClientProperties.consumer(settings)) }
    found.judge {
      try makeClient(RD_KAFKA_PRODUCER, try ClientProperties.producer(settings, maximumBytes: 1_000_000))
    }
    // What both have is said once.
    var said: Set<String> = []
    found.mistakes.removeAll { !said.insert($0).inserted }
    return found
  }

  private static func unreadable(_ settings: Settings) -> [String] {
    let files = [
      ("KAFKA_SSL_CA_CERTFILE", settings.kafkaSSLCACertFile),
      ("KAFKA_SSL_CERTFILE", settings.kafkaSSLCertFile), ("KAFKA_SSL_KEYFILE", settings.kafkaSSLKeyFile),
    ]
    return files.compactMap { name, path in
      guard !path.isEmpty, access(path, R_OK) != 0 else { return nil }
      return "\(name): '\(path)' can't be read: \(String(cString: strerror(errno)))"
    }
  }

  /// Makes a client that knows no broker, and gives it up: files are read only by a client.
  private static func makeClient(_ type: rd_kafka_type_t, _ properties: [ClientProperty]) throws(KafkaError) {
    let configuration = try KafkaConsumer.configuration(properties.filter { $0.name != "bootstrap.servers" })
    var reason = [CChar](repeating: 0, count: KafkaConsumer.maximumReasonBytes)
    guard let client = rd_kafka_new(type, configuration, &reason, reason.count) else {
      rd_kafka_conf_destroy(configuration)
      throw KafkaError("KAFKA_SSL_…, KAFKA_PROPERTIES: \(text(ofZeroTerminated: reason))")
    }
    rd_kafka_destroy_flags(client, CInt(RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE))
  }
}
