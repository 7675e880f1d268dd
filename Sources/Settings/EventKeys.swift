// Keys about ports, origins, events and their authorization, and Kafka.

import Foundation

extension SettingKey {
  /// Ports; 0 lets the system choose one, which the supervisor then logs.
  private static let ports = 0...ValueForm.largestPort

  static let network: [SettingKey] = [
    .integer("INBOUND_PORT", \.inboundPort, ports, "port that faces frontends; 0: any free one").also("PORT"),
    .integer(
      "INBOUND_HTTPS_PORT", \.inboundHTTPSPort, ports,
      "TLS port that faces frontends, open if HTTPS_CERTFILE is set; 0: any free one"),
    .integer(
      "API_HTTP_PORT", \.apiHTTPPort, ports, "port that faces services and operators; 0: any free one"),
    .integer(
      "API_HTTPS_PORT", \.apiHTTPSPort, ports,
      "TLS port that faces services and operators, open if HTTPS_CERTFILE is set; 0: any free one"),
    .text(
      "HOST", \.host, form: "a host name or an IP address",
      "name under which others reach this gateway; never bound to",
      parse: { (text) throws(ValueProblem) in try ValueForm.host(text) }),
    .text(
      "BIND_ADDRESS", \.bindAddress, form: "an IP address",
      "address that the ports are bound to; unset: all. Without a MANAGEMENT_TOKEN one that isn't loopback opens the API_ ports to "
        + "whoever reaches it, unless API_BIND_ADDRESS is set",
      parse: { (text) throws(ValueProblem) in try ValueForm.address(text) }),
    .text(
      "API_BIND_ADDRESS", \.apiBindAddress, form: "an IP address",
      "address that the API_ ports are bound to, open to whoever reaches it without a MANAGEMENT_TOKEN; unset: BIND_ADDRESS, and "
        + "without that and a MANAGEMENT_TOKEN they serve this machine only, but for health and metrics",
      parse: { (text) throws(ValueProblem) in try ValueForm.address(text) }),
    .list(
      "API_HOSTS", \.apiHosts, form: "host names, separated by commas",
      "names by which the API_ ports may be called without a MANAGEMENT_TOKEN, beside addresses and names without a dot",
      parse: { (text) throws(ValueProblem) in try ValueForm.hostName(text) }),
    .list(
      "CORS", \.cors, form: ValueForm.origin,
      "origins of web pages that may read answers of the inbound port and open WebSockets to it, and through it to services",
      parse: { (text) throws(ValueProblem) in try ValueForm.origin(text) }
    ).unsetWhenEmpty,
    .list(
      "HTTPS_CERTFILE", \.httpsCertFiles, form: "paths, separated by commas",
      "certificates of the TLS ports with their chains (PEM), chosen by server name, the first by default",
      parse: { (text) throws(ValueProblem) in text }),
    .list(
      "HTTPS_KEYFILE", \.httpsKeyFiles, form: "paths, separated by commas",
      "keys of these certificates (PEM), in the same order", parse: { (text) throws(ValueProblem) in text }),
    .scalar(
      "HTTPS_KEYFILE_PASS", \.httpsKeyFilePass, form: "a password", help: "password of the keys",
      parse: { (text) throws(ValueProblem) in Secret(text) }, show: { $0.map(\.description) ?? "" }
    ).secret,
  ]

  static let events: [SettingKey] = [
    SettingKey(
      name: "EXTRACTORS", form: "JSON, or the path of a JSON or YAML file",
      help: "fields that subscriptions can be constrained by",
      assign: { (node, settings) throws(ValueProblems) in
        settings.extractors = try ExtractorSource.table(node)
      },
      show: { settings in
        let fields = settings.extractors.byType.values.reduce(0) { $0 + $1.count }
        return settings.extractors.byType.isEmpty
          ? "" : "<\(settings.extractors.byType.count) event types, \(fields) fields>"
      }),
    .text(
      "KAFKA_USER_FIELD", \.kafkaUserField, form: "a name",
      "attribute that addresses an event to users; empty: none",
      parse: { (text) throws(ValueProblem) in ValueForm.trimmed(text[...]) }
    ).setWhenEmpty.also("MESSAGE_USER_FIELD"),
    check("SUBSCRIPTION_CHECK", \.subscriptionCheck, "how subscriptions are authorized"),
    check("SUBMISSION_CHECK", \.submissionCheck, "how submitted events are authorized"),
    .flag(
      "SUBMISSION_MAY_ADDRESS", \.submissionMayAddress,
      "let events that are submitted on the inbound port be addressed to users, also by endpoints whose topic is one of "
        + "KAFKA_SOURCE_TOPICS"),
  ]

  static let kafka: [SettingKey] = [
    .scalar(
      "KAFKA_ENABLED", \.kafkaEnabled, form: ValueForm.boolean,
      help:
        "false: no Kafka, whatever KAFKA_BROKERS says; true: KAFKA_BROKERS must not be empty; unset: that decides",
      parse: { (text) throws(ValueProblem) in try ValueForm.boolean(text) },
      show: { $0.map { String($0) } ?? "" }),
    .list(
      "KAFKA_BROKERS", \.kafkaBrokers, form: "host:port, separated by commas", "brokers; empty: no Kafka",
      parse: { (text) throws(ValueProblem) in try ValueForm.brokerAddress(text) }
    ).also("KAFKA_HOSTS"),
    .list(
      "KAFKA_SOURCE_TOPICS", \.kafkaSourceTopics, form: "names, separated by commas",
      "topics whose records are events", parse: { (text) throws(ValueProblem) in try topic(text) }),
    .text(
      "KAFKATOFILTER_KAFKA_GROUP_ID", \.kafkaGroupID, form: "a name",
      "consumer group under which offsets are committed; with NODE_NAME: this name, a dot and that one",
      parse: { (text) throws(ValueProblem) in try ValueForm.nonEmpty(text) }
    ).also("KAFKA_CONSUMER_GROUP"),
    .text(
      "NODE_NAME", \.nodeName, form: "at most 64 letters, digits, '.', '_' or '-'",
      "name of this gateway among several that read the same topics; empty: it is alone",
      parse: { (text) throws(ValueProblem) in try nodeName(text) }),
    .scalar(
      "KAFKA_SASL", \.kafkaSASL, form: ValueForm.sasl, help: "credentials for the brokers",
      parse: { (text) throws(ValueProblem) in try ValueForm.sasl(text) },
      show: { $0.map { "plain:\($0.user):\(Secret.placeholder)" } ?? "" }
    ).secret,
    .flag("KAFKA_SSL_ENABLED", \.kafkaSSLEnabled, "speak TLS with the brokers"),
    .text(
      "KAFKA_SSL_CA_CERTFILE", \.kafkaSSLCACertFile, form: "a path", "certificates trusted for brokers (PEM)"),
    .text("KAFKA_SSL_CERTFILE", \.kafkaSSLCertFile, form: "a path", "certificate shown to brokers (PEM)"),
    .text("KAFKA_SSL_KEYFILE", \.kafkaSSLKeyFile, form: "a path", "key of KAFKA_SSL_CERTFILE (PEM)"),
    .scalar(
      "KAFKA_SSL_KEYFILE_PASS", \.kafkaSSLKeyFilePass, form: "a password",
      help: "password of KAFKA_SSL_KEYFILE",
      parse: { (text) throws(ValueProblem) in Secret(text) }, show: { $0.map(\.description) ?? "" }
    ).secret,
    SettingKey(
      name: "KAFKA_PROPERTIES", form: "NAME=VALUE, separated by commas",
      help: "properties passed to librdkafka as they are", isSecret: true,
      assign: { (node, settings) throws(ValueProblems) in settings.kafkaProperties = try properties(node) },
      show: { $0.kafkaProperties.keys.sorted().map { "\($0)=\(Secret.placeholder)" }.joined(separator: ",") }),
    .integer(
      "KAFKA_PUBLISH_TIMEOUT_MS", \.kafkaPublishTimeoutMs, 100...600_000, unit: "milliseconds",
      "time in which the brokers must acknowledge a record that the gateway produces"),
    .integer(
      "KAFKA_RESTART_DELAY_MS", \.kafkaRestartDelayMs, 1...600_000, unit: "milliseconds",
      "wait before a failed client is made anew"),
    .notUsed("KAFKA_SERIALIZER", form: "json", initially: "json", "format of records; avro isn't there yet") {
      (text) throws(ValueProblem) in
      guard try ValueForm.choice(text, of: ["json", "avro"]) == "json" else {
        throw ValueProblem(
          "'\(text)' isn't there yet: JSON would be written to topics of Avro; expected json")
      }
    },
  ]

  private static func check(_ name: String, _ field: SettingField<AccessCheck>, _ help: String) -> SettingKey
  {
    let form = "no_check, jwt_validation (in any case) or the URL of a service"
    return .scalar(
      name, field, form: form, help: help,
      parse: { (text) throws(ValueProblem) in
        switch text.lowercased() {
        case AccessCheck.none.text: return .none
        case AccessCheck.token.text: return .token
        case _ where text.contains("://"): return .service(url: try ValueForm.url(text))
        default: throw ValueProblem("'\(text)' is unknown; expected \(form)")
        }
      }, show: { $0.text })
  }

  private static let mostNodeNameBytes = 64

  private static func nodeName(_ text: String) throws(ValueProblem) -> String {
    guard text.utf8.count <= mostNodeNameBytes, isName(text) else {
      throw ValueProblem(
        "'\(text)' is no name of a node; expected at most \(mostNodeNameBytes) letters, digits, '.', '_' or '-'"
      )
    }
    return text
  }

  private static func isName(_ text: String) -> Bool { ValueForm.hasOnly(text, "._-") }

  static func topic(_ text: String) throws(ValueProblem) -> String {
    guard isName(text), text.utf8.count <= 249, text != ".", text != ".." else {
      throw ValueProblem("'\(text)' is no topic name; expected at most 249 letters, digits, '.', '_' or '-'")
    }
    return text
  }

  private static func properties(_ node: SourceNode) throws(ValueProblems) -> [String: String] {
    var result: [String: String] = [:]
    switch node.content {
    case .scalar(let text, _):
      for part in text.split(separator: ",") {
        guard let equals = part.firstIndex(of: "=") else {
          throw ValueProblems("an entry without '='; expected NAME=VALUE, separated by commas")
        }
        let name = ValueForm.trimmed(part[..<equals])
        guard !name.isEmpty else { throw ValueProblems("an entry without a name before '='") }
        result[name] = String(part[part.index(after: equals)...])
      }
    case .mapping(let members):
      for (key, value) in members {
        guard let name = key.text, !name.isEmpty, let text = value.text else {
          throw ValueProblems([value.problem("expected an object of texts")])
        }
        result[name] = text
      }
    case .sequence:
      throw ValueProblems([node.problem("expected NAME=VALUE, separated by commas, or an object of texts")])
    }
    return result
  }
}
