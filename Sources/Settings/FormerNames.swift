// Variables that a version of RIG knew and this gateway has no key for: whoever brings them along is told what became of them, by
// name. Those that mean the same under another name are aliases of its key (SettingKey) and not here.
//
// Exact names only: orchestrators put variables of other services into every environment (NATS_PORT, NODE_ENV).

enum FormerNames {
  private static let nats = "NATS isn't spoken; bring its events to Kafka, or to POST /v3/messages"
  private static let kinesis = "Kinesis isn't spoken; bring its events to Kafka, or to POST /v3/messages"
  private static let avro = "Avro isn't there yet; records are JSON"
  private static let tracing =
    "spans aren't exported; the trace context (traceparent) is passed on in requests and events"
  private static let cluster =
    "nodes don't find each other by Erlang's distribution; each one serves for itself"
  private static let firehose = "it isn't there; let the targets read the topic, or subscribe"

  /// What to use instead, or what became of it, by name.
  static let advice: [String: String] = {
    var advice: [String: String] = [
      "API_PORT": "use API_HTTP_PORT",
      "PROXY_KAFKA_REQUEST_TOPIC": "each endpoint's own topic says where its requests go",
      "PROXY_KAFKA_RESPONSE_KAFKA_GROUP_ID": "responses are read without a group, each once by every gateway",
      "RATE_LIMIT_SWEEP_INTERVAL_MS": "buckets that are full are dropped by themselves",
      "PROMETHEUS_METRICS_ENABLED": "GET /metrics of the management port is always there",
      "DISCOVERY_TYPE": cluster, "DNS_NAME": cluster, "NODE_HOST": cluster,
      "NODE_COOKIE": cluster + ", and tokens and correlation ids have keys of their own",
    ]
    let groups: [(advice: String, names: [String])] = [
      (
        nats,
        ["NATS_SERVERS", "NATS_SOURCE_TOPICS", "NATSTOFILTER_QUEUE_GROUP", "PROXY_NATS_RESPONSE_TIMEOUT"]
      ),
      (
        kinesis,
        [
          "KINESIS_APP_NAME", "KINESIS_AWS_REGION", "KINESIS_CLIENT_JAR", "KINESIS_DYNAMODB_ENDPOINT",
          "KINESIS_ENABLED", "KINESIS_ENDPOINT", "KINESIS_LOG_LEVEL", "KINESIS_OTP_JAR", "KINESIS_STREAM",
          "PROXY_KINESIS_REQUEST_REGION", "PROXY_KINESIS_REQUEST_STREAM", "PROXY_KINESIS_RESPONSE_TIMEOUT",
        ]
      ),
      (avro, ["KAFKA_SCHEMA_REGISTRY_HOST", "KAFKA_LOG_SCHEMA", "PROXY_KAFKA_REQUEST_AVRO"]),
      (tracing, ["JAEGER_HOST", "JAEGER_PORT", "JAEGER_SERVICE_NAME"]),
      (firehose, ["FIREHOSE_KAFKA_HTTP_TARGETS", "FIREHOSE_KAFKA_SOURCE_TOPICS"]),
    ]
    for group in groups {
      for name in group.names { advice[name] = group.advice }
    }
    return advice
  }()
}
