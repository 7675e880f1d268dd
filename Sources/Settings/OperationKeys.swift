// Keys about the API gateway, operation and limits.

extension SettingKey {
  static let proxy: [SettingKey] = [
    .text("PROXY_CONFIG_FILE", \.proxyConfig, form: "JSON, or a path", "API definitions to start with"),
    .integer(
      "PROXY_WORKERS", \.proxyWorkers, 1...Settings.mostProxyWorkers,
      "number of workers that call services"),
    .text(
      "PROXY_CA_CERTFILE", \.proxyCACertFile, form: "a path",
      "certificates trusted for services behind https (PEM); unset: those that the system trusts"),
    .integer(
      "PROXY_RECV_TIMEOUT", \.proxyRecvTimeoutMs, 1...3_600_000, unit: "milliseconds",
      "time that a service has to begin its answer"),
    .list(
      "PROXY_KAFKA_RESPONSE_TOPICS", \.proxyKafkaResponseTopics, form: "names, separated by commas",
      "topics whose records are responses to requests, those with the header rig-correlation if they have events too; empty: none",
      parse: { (text) throws(ValueProblem) in try topic(text) }),
    .integer(
      "PROXY_KAFKA_RESPONSE_TIMEOUT", \.proxyKafkaResponseTimeoutMs, 1...3_600_000, unit: "milliseconds",
      "time that a request waits for a response from Kafka"
    ).also("PROXY_KAFKA_REQUEST_TIMEOUT"),
    .integer(
      "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", \.proxyHTTPAsyncResponseTimeoutMs, 1...3_600_000,
      unit: "milliseconds", "time that a request waits for a response by POST /v3/responses"),
    .list(
      "REQUEST_LOG", \.requestLog, form: "console, kafka or both",
      "where proxied requests are logged; empty: nowhere",
      parse: { (text) throws(ValueProblem) in try ValueForm.choice(text, of: ["console", "kafka"]) }),
    .text(
      "REQUEST_LOG_TOPIC", \.requestLogTopic, form: "a topic", "topic of REQUEST_LOG=kafka",
      parse: { (text) throws(ValueProblem) in try topic(text) }
    ).also("KAFKA_LOG_TOPIC"),
    .flag(
      "RATE_LIMIT_ENABLED", \.rateLimitEnabled, "limit the requests to each service and to each Kafka topic"),
    .flag(
      "RATE_LIMIT_PER_IP", \.rateLimitPerIP,
      "limit them for each client address (see TRUSTED_PROXIES), not for all together"),
    .integer(
      "RATE_LIMIT_AVG_RATE_PER_SEC", \.rateLimitPerSecond, 1...1_000_000,
      "requests per second and service; more: 429"),
    .integer(
      "RATE_LIMIT_BURST_SIZE", \.rateLimitBurst, 1...1_000_000,
      "requests to a service at once, after it had none for a while"),
    inboundAPIs,
  ]

  private static let inboundAPIs: SettingKey = {
    let off = "off"
    let key = SettingKey.list(
      "INBOUND_APIS", \.inboundAPIs, form: "loopback, IP addresses and networks, separated by commas; or off",
      "peers that may read the API definitions on the inbound port",
      parse: { (text) throws(ValueProblem) in
        let word = text.lowercased()
        return [Settings.loopback, off].contains(word) ? word : try ValueForm.network(text)
      })
    let assign = key.assign
    return SettingKey(
      name: key.name, form: key.form, help: key.help,
      assign: { (node, settings) throws(ValueProblems) in
        try assign(node, &settings)
        guard settings.inboundAPIs.contains(off) else { return }
        guard settings.inboundAPIs == [off] else {
          throw ValueProblems("has \(off) beside others; expected \(off) alone, or none")
        }
        settings.inboundAPIs = []
      },
      show: { $0.inboundAPIs.isEmpty ? off : $0.inboundAPIs.joined(separator: ",") })
  }()

  static let operation: [SettingKey] = [
    .scalar(
      "LOG_LEVEL", \.logLevel, form: levels.joined(separator: ", "),
      help: "least severe messages that are logged",
      parse: { (text) throws(ValueProblem) in
        try ValueForm.choice(text, of: levels, synonyms: ["warn": "warning", "fatal": "critical"])
      }, show: { $0 }),
    .scalar(
      "LOG_FMT", \.logFormat, form: "auto, json or human",
      help: "form of log lines; auto: human on a terminal",
      parse: { (text) throws(ValueProblem) in
        try ValueForm.choice(
          text, of: ["auto", "json", "human"], synonyms: ["gcl": "json", "erlang": "human"])
      }, show: { $0 }),
    .integer(
      "CONNECTION_WORKERS", \.connectionWorkers, 1...Settings.mostConnectionWorkers,
      "number of connection workers"),
    .integer(
      "WATCHDOG_S", \.watchdogSeconds, 2...3_600, unit: "seconds",
      "silence after which a worker counts as hung"),
    .integer(
      "DRAIN_TIMEOUT_S", \.drainTimeoutSeconds, 1...3_600, unit: "seconds",
      "time to say goodbye to clients, and to finish what they have begun"),
    .integer(
      "RESTART_INTENSITY", \.restartIntensity, 0...1_000,
      "restarts of each worker allowed within RESTART_PERIOD_S"),
    .integer(
      "RESTART_PERIOD_S", \.restartPeriodSeconds, 1...86_400, unit: "seconds",
      "window in which restarts are counted"),
    .integer(
      "TURN_LIMIT_MS", \.turnLimitMs, 1...3_600_000, unit: "milliseconds",
      "CPU time of one turn of a worker's loop; longer ones are logged as errors"),
    wholeNumber("PROBATION_S", "30", 1...3_600, "seconds before a new release is permanent"),
    .text(
      "STATE_DIR", \.stateDir, form: "the path of a directory",
      "where API definitions, the blacklist and read positions outlive the gateway; empty: nowhere",
      parse: { (text) throws(ValueProblem) in try ValueForm.directory(text) }),
    .scalar(
      "MANAGEMENT_TOKEN", \.managementToken, form: ValueForm.bearerToken,
      help:
        "bearer token that the API_ ports demand, but for health and metrics; unset: none is demanded, and they serve this machine "
        + "only unless API_BIND_ADDRESS or BIND_ADDRESS is set; an empty one counts as unset, with a warning",
      parse: { (text) throws(ValueProblem) in try ValueForm.bearerToken(text) },
      show: { $0.map(\.description) ?? "" }
    ).secret,
  ]

  static let limits: [SettingKey] = [
    .integer(
      "MAX_CONNECTIONS_PER_MINUTE", \.maxConnectionsPerMinute, 1...1_000_000_000,
      "new connections; more: 429; those that come back with a valid cursor don't count, as many as were open lately"
    ),
    .integer(
      "MAX_CONNECTIONS_PER_USER", \.maxConnectionsPerUser, 0...1_000_000,
      "open connections of one user; 0: any number"),
    .integer(
      "MAX_CONNECTIONS_PER_ADDRESS", \.maxConnectionsPerAddress, 0...1_000_000,
      "open connections from one address (see TRUSTED_PROXIES), of IPv6 from one /64; 0: any number"),
    .text(
      "CONNECTION_LIMIT_CLOSES", \.connectionLimitCloses, form: "oldest or newest",
      "what gives way to such a limit: the oldest connection, which is closed, or the newest: 429",
      parse: { (text) throws(ValueProblem) in try ValueForm.choice(text, of: ["oldest", "newest"]) }),
    .integer(
      "MAX_CONNECTIONS_PER_WORKER", \.maxOpenConnectionsPerWorker, 1...1_000_000,
      "open connections, at most as many as there are descriptors for (RLIMIT_NOFILE); more: 503"),
    .integer(
      "MAX_REQUEST_HEAD_BYTES", \.maxRequestHeadBytes, 1_024...1_048_576, unit: "bytes",
      "request head; more: 431"),
    .integer(
      "REQUEST_HEAD_TIMEOUT_S", \.requestHeadTimeoutSeconds, 1...3_600, unit: "seconds",
      "from the first byte of a request to the end of its head; longer: 408"),
    .integer(
      "REQUEST_STALL_TIMEOUT_S", \.requestStallTimeoutSeconds, 1...3_600, unit: "seconds",
      "between two pieces of a request body; longer: 408"),
    .integer(
      "REQUEST_BODY_TIMEOUT_S", \.requestBodyTimeoutSeconds, 1...86_400, unit: "seconds",
      "for a whole body that isn't passed on as it comes, longer: 408; for a WebSocket message, longer: 1008"),
    .integer(
      "MIN_BODY_RATE", \.minBodyRate, 0...1_000_000_000, unit: "bytes per second",
      "rate at which a client must send a body, or take an answer, while it is waited for; slower: 408, and an answer that has begun "
        + "is cut off; 0: any"),
    .integer(
      "MIN_BODY_RATE_WINDOW_S", \.minBodyRateWindowSeconds, 1...3_600, unit: "seconds",
      "time over which MIN_BODY_RATE is averaged"),
    .integer(
      "IDLE_TIMEOUT_S", \.idleTimeoutSeconds, 1...86_400, unit: "seconds",
      "between two requests of a connection; then it is closed"),
    .integer(
      "WRITE_STALL_TIMEOUT_S", \.writeStallTimeoutSeconds, 1...3_600, unit: "seconds",
      "in which a client takes nothing of its answer; then the connection is closed"),
    .integer(
      "MAX_STREAMS_PER_CONNECTION", \.maxStreamsPerConnection, 0...10_000,
      "streams of an HTTP/2 connection; 0: no HTTP/2"),
    .integer(
      "MAX_ASSEMBLY_BYTES_PER_CONNECTION", \.maxAssemblyBytesPerConnection, 16_384...1_073_741_824,
      unit: "bytes",
      "unanswered bodies of a connection, more: 429, or unfinished and waiting messages of a WebSocket, more: 1009; at least "
        + "MAX_EVENT_BYTES"),
    .integer(
      "MAX_ASSEMBLY_BYTES_PER_WORKER", \.maxAssemblyBytesPerWorker, 65_536...68_719_476_736, unit: "bytes",
      "unanswered bodies and unfinished messages of a worker, at least twice MAX_EVENT_BYTES; more: 503, a WebSocket 1013; the last "
        + "quarter is for connections that hold at most 16 KiB"),
    .integer("MAX_EVENT_BYTES", \.maxEventBytes, 256...67_108_864, unit: "bytes", "inbound event; more: 413"),
    .integer(
      "MAX_SUBSCRIPTIONS_PER_CONNECTION", \.maxSubscriptionsPerConnection, 1...1_000_000,
      "subscriptions; more: 400"),
    .integer(
      "MAX_CONDITIONS_PER_CONNECTION", \.maxConditionsPerConnection, 1...65_535,
      "objects in oneOf of a connection's subscriptions; more: 400"),
    .integer(
      "MAX_CONDITION_FIELDS_PER_CONNECTION", \.maxConditionFieldsPerConnection, 1...1_000_000,
      "fields in all of those objects; more: 400"),
    .integer(
      "MAX_SUBSCRIPTION_BYTES_PER_CONNECTION", \.maxSubscriptionBytesPerConnection, 1_024...67_108_864,
      unit: "bytes", "text of a connection's subscriptions; more: 413"),
    .integer(
      "MAX_SUBSCRIPTION_CHANGES_PER_MINUTE", \.maxSubscriptionChangesPerMinute, 1...1_000_000,
      "changes of a connection's subscriptions; more: 429"),
    .integer(
      "MAX_CONDITIONS_PER_WORKER", \.maxConditionsPerWorker, 1...100_000_000,
      "objects in oneOf of all connections of a worker; more: 503"),
    .integer(
      "MAX_CONDITION_FIELDS_PER_WORKER", \.maxConditionFieldsPerWorker, 1...1_000_000_000,
      "fields in all of those objects; more: 503"),
    .integer(
      "MAX_SUBSCRIPTION_BYTES_PER_WORKER", \.maxSubscriptionBytesPerWorker, 1_048_576...68_719_476_736,
      unit: "bytes", "bytes that a worker keeps of subscriptions; more: 503"),
    .integer(
      "MAX_CONDITIONS_PER_FIELD_VALUE", \.maxConditionsPerFieldValue, 1...1_000_000,
      "conditions of several fields that an event has to be compared with for one of its values; more: 503"),
    .integer(
      "MAX_UNSENT_BYTES", \.maxUnsentBytes, 4_096...1_073_741_824, unit: "bytes",
      "bytes waiting for a slow client; it gets what follows from the log, at its own pace"),
    .integer(
      "SLOW_CONSUMER_S", \.slowConsumerSeconds, 1...3_600, unit: "seconds",
      "in which a client takes nothing of the events that wait for it; then it is told and closed, if TCP_USER_TIMEOUT_S is longer"
    ),
    .integer("LONGPOLLING_MAX_EVENTS", \.longpollingMaxEvents, 1...100_000, "events held between polls"),
    .integer(
      "LONGPOLLING_MAX_BYTES", \.longpollingMaxBytes, 4_096...1_073_741_824, unit: "bytes",
      "bytes held between polls"),
    .integer(
      "LONGPOLLING_WAIT_S", \.longpollingWaitSeconds, 1...3_600, unit: "seconds", "longest wait of a poll"),
    .integer(
      "LONGPOLLING_TIMEOUT_S", \.longpollingTimeoutSeconds, 1...86_400, unit: "seconds",
      "silence after which a long-polling session ends"),
    .integer(
      "HEARTBEAT_S", \.heartbeatSeconds, 1...3_600, unit: "seconds", "silence before a heartbeat or ping"),
    .integer(
      "WEBSOCKET_PONG_TIMEOUT_S", \.websocketPongTimeoutSeconds, 1...3_600, unit: "seconds",
      "time to answer a ping"),
    .flag(
      "WEBSOCKET_DEFLATE", \.websocketDeflate,
      "compress WebSocket messages for clients that offer permessage-deflate"),
    .integer(
      "TCP_USER_TIMEOUT_S", \.tcpUserTimeoutSeconds, 1...3_600, unit: "seconds",
      "time to acknowledge what was sent; a client that doesn't is gone"),
    .integer(
      "CLOCK_JUMP_DELAY_S", \.clockJumpDelaySeconds, 0...86_400, unit: "seconds",
      "for which a jump of the wall clock must last until tokens and events are judged by it; 0: at once"),
    ring(
      "EVENT_RING_BYTES", \.eventRingBytes, "event ring of a connection worker, and of the control worker"),
    ring("STREAMS_RING_BYTES", \.streamsRingBytes, "event ring of the streams worker"),
    ring("REQUEST_RING_BYTES", \.requestRingBytes, "request ring of a connection worker"),
    ring("CALL_RING_BYTES", \.callRingBytes, "ring between a worker and those that call services for it"),
    ring("RESPONSE_RING_BYTES", \.responseRingBytes, "ring for records to be produced, or for responses"),
    ring("STATE_RING_BYTES", \.stateRingBytes, "ring that keeps and spreads blacklist and presence"),
    ring("PRESENCE_RING_BYTES", \.presenceRingBytes, "presence ring of a connection worker"),
    ring(
      "POSITION_RING_BYTES", \.positionRingBytes, "ring that keeps the read positions of Kafka's partitions"),
    .integer(
      "KEEPER_TTL_S", \.keeperTTLSeconds, 0...86_400, unit: "seconds",
      "for which a dead connection worker's connections are kept for the next one, longer than WATCHDOG_S (unset: by 20); 0: they end with "
        + "it"),
    .integer(
      "LINGER_S", \.lingerSeconds, 1...86_400, unit: "seconds",
      "for which a connection worker that was replaced (USR1) finishes what it can't pass to the next one: requests, tunnels"
    ),
    .integer(
      "LEDGER_BYTES", \.ledgerBytes, 1_048_576...68_719_476_736, unit: "bytes",
      "memory, taken as needed, for what a connection worker's successor has to know of its connections; those that don't fit end with it"
    ),
    .integer(
      "WARM_SPARES", \.warmSpares, 0...8,
      "processes that wait in reserve, so that a dead connection worker's connections wait less (unset: 1 with 4 GiB of memory or more)"
    ),
    .integer(
      "MAX_PROXIED_REQUESTS", \.maxProxiedRequests, 1...1_000_000,
      "requests of a connection worker that are proxied at once, until clients have the answers; more: 503"),
    .integer(
      "MAX_WAITING_REQUESTS", \.maxWaitingRequests, 1...1_000_000,
      "requests of a connection worker that wait for a response at once, until clients have it; more: 503"),
    .integer(
      "MAX_TUNNELS", \.maxTunnels, 1...1_000_000,
      "WebSockets between clients and services that a connection worker has at once; more: 503"),
    .integer(
      "MAX_RETRY_BODY_BYTES", \.maxRetryBodyBytes, 0...1_048_576, unit: "bytes",
      "body of an idempotent request to a service that is kept so that it can be sent again on another connection; with a longer one "
        + "it isn't; 0: only without a body"),
    .integer(
      "MAX_SHARE_OF_CLIENT", \.maxShareOfClient, 1...100, unit: "percent",
      "of MAX_PROXIED_REQUESTS, MAX_TUNNELS and MAX_WAITING_REQUESTS for one address (see TRUSTED_PROXIES; IPv6: /64); more: 429"
    ),
    .integer(
      "MAX_SHARE_OF_API", \.maxShareOfAPI, 1...100, unit: "percent",
      "of MAX_PROXIED_REQUESTS, MAX_TUNNELS and MAX_WAITING_REQUESTS for one API; more: 503"),
    .integer(
      "CHECK_TIMEOUT_MS", \.checkTimeoutMs, 1...600_000, unit: "milliseconds",
      "time that a check service has to answer"),
    .integer(
      "CHECK_MAX_CONCURRENT", \.checkMaxConcurrent, 1...100_000,
      "calls of a check service in progress at once; more wait"),
    .integer(
      "CHECK_MAX_WAITING", \.checkMaxWaiting, 0...1_000_000, "calls of a check service that wait; more: 503"),
    .integer(
      "CIRCUIT_FAILURES", \.circuitFailures, 1...1_000_000,
      "failures in a row after which a service is left alone"),
    .integer(
      "CIRCUIT_OPEN_S", \.circuitOpenSeconds, 1...3_600, unit: "seconds",
      "time for which such a service is left alone"),
    .integer(
      "MAX_BLACKLIST_ENTRIES", \.maxBlacklistEntries, 1...10_000_000, "sessions on the blacklist; more: 503"),
  ]

  /// Names of swift-log's levels, from most to least talkative.
  private static let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]

  private static func ring(_ name: String, _ field: SettingField<Int>, _ help: String) -> SettingKey {
    let range = 65_536...4_294_967_296
    return .scalar(
      name, field, form: ValueForm.integer(range, unit: "bytes, a multiple of \(ValueForm.pageSize)"),
      help: help,
      parse: { (text) throws(ValueProblem) in try ValueForm.ringSize(text, range) }, show: { String($0) })
  }

  private static func wholeNumber(
    _ name: String, _ value: String, _ range: ClosedRange<Int>, _ help: String
  ) -> SettingKey {
    .notUsed(name, form: ValueForm.integer(range, unit: ""), initially: value, help) {
      (text) throws(ValueProblem) in
      _ = try ValueForm.integer(text, range, unit: "")
    }
  }
}
