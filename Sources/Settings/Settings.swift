// Everything that can be configured, as typed and validated values. Made by `Settings.load` in the supervisor and handed
// to the workers as JSON in sealed memory: never write that JSON anywhere else, it holds the secrets. Printing settings
// is safe: `description` shows every key by its name and no secret.

import Foundation

/// The gateway's configuration. The initial values are the defaults.
public struct Settings: Codable, Sendable, Equatable {
  /// Port that faces frontends; 0: any free one.
  public var inboundPort = 4000
  /// Port that faces services and operators; 0: any free one.
  public var apiHTTPPort = 4010
  /// TLS port that faces frontends; 0: any free one. Of use only with certificates.
  public var inboundHTTPSPort = 4001
  /// TLS port that faces services and operators; 0: any free one. Of use only with certificates.
  public var apiHTTPSPort = 4011
  /// Files of the certificates, each with its chain (PEM), the default one first; empty: no TLS.
  public var httpsCertFiles: [String] = []
  /// Files of their keys (PEM), in the same order.
  public var httpsKeyFiles: [String] = []
  /// Password of those keys that are under one; nil: none is.
  public var httpsKeyFilePass: Secret?
  /// Name under which others reach this gateway; empty: unknown. Never bound to.
  public var host = ""
  /// IP address that the ports are bound to; empty: every address of the machine.
  public var bindAddress = ""
  /// IP address that the management ports are bound to; empty: as `bindAddress` says.
  public var apiBindAddress = ""
  /// Host names under which the management ports may be called without a token, beside addresses and names without a dot.
  public var apiHosts: [String] = []
  /// Origins of web pages that may call the inbound port: `*`, origins, patterns (`OriginList`).
  public var cors = ["*"]
  /// New connections that one gateway accepts per minute before it answers 429.
  public var maxConnectionsPerMinute = 5_000
  /// Connections of one user that one gateway has open at once; 0: any number.
  public var maxConnectionsPerUser = 0
  /// Connections from one address (of IPv6 one network of 64 bits) that one gateway has open at once; 0: any number.
  public var maxConnectionsPerAddress = 0
  /// Which connection goes when there is one too many: `oldest` or `newest`.
  public var connectionLimitCloses = "oldest"

  /// Constraint fields of each event type.
  public var extractors = ExtractorTable()
  /// Name of the top-level attribute that addresses an event to users.
  public var kafkaUserField = "user"
  /// How subscriptions are authorized.
  public var subscriptionCheck = AccessCheck.none
  /// How submissions are authorized.
  public var submissionCheck = AccessCheck.none
  /// Whether what is submitted on the inbound port may be addressed to users.
  public var submissionMayAddress = true

  /// Key of token signatures: PEM, or else a secret; nil: none.
  public var jwtSecretKey: Secret?
  /// Names of the signature algorithms that tokens may use; empty: HS256, or with nothing but a JWK set all that
  /// aren't symmetric.
  public var jwtAlgorithms: [String] = []
  /// JWK sets: one for tokens of every issuer, or any number, each for those of its own.
  public var jwtKeySets: [KeySetSource] = []
  /// Seconds after which a JWK set is looked at again.
  public var jwtJWKSRefreshSeconds = 60
  /// Where in a token the session is: RFC 6901 tokens.
  public var jwtSessionPointer = ["jti"]
  /// Where in a token the user is: RFC 6901 tokens; nil: `/user`, or else `/sub`.
  public var jwtUserPointer: [String]?
  /// Where in a token the roles are: RFC 6901 tokens.
  public var jwtRolesPointer = ["roles"]
  /// Of these a token must be for one (`aud`, RFC 7519 §4.1.3); empty: it isn't looked at.
  public var jwtAudiences: [String] = []
  /// Of these one must have issued a token (`iss`, RFC 7519 §4.1.1); empty: it isn't looked at.
  public var jwtIssuers: [String] = []
  /// Whether a token without `exp` is refused.
  public var jwtRequireExpiry = true
  /// Clock difference allowed for `exp` and `nbf`, in seconds.
  public var jwtLeewaySeconds = 0
  /// Whether a connection is closed when its token expires.
  public var jwtCloseOnExpiry = true
  /// Whether a connection of one user may take on the token of another.
  public var maySwitchUser = false
  /// Roles that may follow other users' events and presence.
  public var privilegedRoles: [String] = []
  /// Only users with this role are listed by presence; empty: all; nil: all too, but on RIG 1's paths those whom RIG 1 lists.
  public var sessionRole: String?
  /// Hours for which a session is ended by RIG 1's path if nothing says when its tokens end.
  public var jwtBlacklistDefaultExpiryHours = 1
  /// Seconds without a connection after which a user counts as gone.
  public var presenceGraceSeconds = 5
  /// Addresses of the proxies whose forwarding headers count, as `address` or `address/bits`.
  public var trustedProxies: [String] = []
  /// Milliseconds that a check service, or whoever serves the JWK set, has to answer.
  public var checkTimeoutMs = 5_000
  /// Calls in progress at once for each purpose of a proxy worker; more wait.
  public var checkMaxConcurrent = 100
  /// Calls that wait for their turn for each purpose of a proxy worker; more: 503.
  public var checkMaxWaiting = 1_000
  /// Failures in a row after which a service is left alone for `circuitOpenSeconds`.
  public var circuitFailures = 5
  /// Seconds for which a service that failed again and again is left alone.
  public var circuitOpenSeconds = 10
  /// Number of proxy workers.
  public var proxyWorkers = 1
  /// API definitions that the gateway starts with: a JSON list, or the path of a file that holds one; empty: none.
  public var proxyConfig = ""
  /// File of the certificates that are trusted for services; empty: the system's.
  public var proxyCACertFile = ""
  /// Milliseconds that a service has to begin its answer.
  public var proxyRecvTimeoutMs = 5_000
  /// Topics whose records are responses to requests that wait for them.
  public var proxyKafkaResponseTopics = ["rig-proxy-response"]
  /// Those of them that have no events.
  public var topicsOfResponsesOnly: [String] {
    proxyKafkaResponseTopics.filter { !kafkaSourceTopics.contains($0) }
  }
  /// Milliseconds that a request waits for a response from Kafka.
  public var proxyKafkaResponseTimeoutMs = 5_000
  /// Milliseconds that a request waits for a response by `POST /v3/responses`.
  public var proxyHTTPAsyncResponseTimeoutMs = 5_000
  /// Requests of one connection worker that wait for a response at once; more: 503.
  public var maxWaitingRequests = 10_000
  /// Requests of one connection worker that are proxied at once; more: 503.
  public var maxProxiedRequests = 1_000
  /// Tunnels of one connection worker at once: proxied requests that have become WebSockets, or ask for it; more: 503.
  public var maxTunnels = 10_000
  /// Bytes of a proxied request's body that are kept until its answer begins, so that the request can be sent again; a longer one isn't.
  /// 0: only requests without a body are.
  public var maxRetryBodyBytes = 64 * 1024
  /// Percent of `maxProxiedRequests`, `maxTunnels` and `maxWaitingRequests` that one client may hold; more: 429.
  public var maxShareOfClient = 50
  /// Percent of them that one API may hold; more: 503.
  public var maxShareOfAPI = 80
  /// Where proxied requests are logged: `console`; empty: nowhere.
  public var requestLog: [String] = []
  /// Topic of REQUEST_LOG=kafka.
  public var requestLogTopic = "rig-request-log"
  /// Whether the requests to each service are limited.
  public var rateLimitEnabled = false
  /// Whether they are limited for each client address, not for all together.
  public var rateLimitPerIP = true
  /// Requests to a service for each second; more: 429.
  public var rateLimitPerSecond = 50
  /// Requests to a service at once, after it had none for a while.
  public var rateLimitBurst = 100
  /// Peers that may read the API definitions on the inbound port: networks, and `loopback`; empty: nobody.
  public var inboundAPIs = [Settings.loopback]
  /// Token that the management port demands of everybody; nil: it is open.
  public var managementToken: Secret?
  /// Directory in which API definitions, the blacklist and read positions outlive the gateway; empty: they don't.
  public var stateDir = ""
  /// Sessions on the blacklist at once; more: 503.
  public var maxBlacklistEntries = 1_000_000

  /// Whether there is Kafka; nil: if there are brokers. Once settings are loaded there are brokers only if there is Kafka.
  public var kafkaEnabled: Bool?
  /// `host:port` of the brokers to start from; empty: the gateway runs without Kafka.
  public var kafkaBrokers: [String] = []
  /// Topics whose records are events.
  public var kafkaSourceTopics = ["rig"]
  /// Consumer group under which offsets are committed, by a gateway that is alone. RIG's own.
  public var kafkaGroupID = "rig-kafka-to-filter"
  /// Name of this gateway among several that read the same topics; empty: it is alone.
  public var nodeName = ""
  /// The consumer group of this gateway: another one's commits are nothing to it.
  public var kafkaGroupOfNode: String { nodeName.isEmpty ? kafkaGroupID : "\(kafkaGroupID).\(nodeName)" }
  /// Credentials for the brokers; nil: none.
  public var kafkaSASL: KafkaSASL?
  /// Whether the brokers are spoken to over TLS.
  public var kafkaSSLEnabled = false
  /// File of the certificates that are trusted for brokers; empty: the system's.
  public var kafkaSSLCACertFile = ""
  /// File of the certificate shown to brokers; empty: none.
  public var kafkaSSLCertFile = ""
  /// File of the key of `kafkaSSLCertFile`.
  public var kafkaSSLKeyFile = ""
  /// Password of `kafkaSSLKeyFile`; nil: none.
  public var kafkaSSLKeyFilePass: Secret?
  /// Further properties of librdkafka, passed through as they are. May hold secrets.
  public var kafkaProperties: [String: String] = [:]
  /// Milliseconds in which the brokers must acknowledge a record that the gateway produces.
  public var kafkaPublishTimeoutMs = 5_000
  /// Milliseconds to wait before a client that failed is made anew.
  public var kafkaRestartDelayMs = 2_000

  /// `trace`, `debug`, `info`, `notice`, `warning`, `error` or `critical`.
  public var logLevel = "info"
  /// `auto` (human on a terminal, else JSON), `json` or `human`.
  public var logFormat = "auto"

  /// Number of connection workers.
  public var connectionWorkers = Settings.processorCount
  /// Seconds without a heartbeat after which a worker counts as hung.
  public var watchdogSeconds = 10
  /// Seconds that a connection worker has to say goodbye to its clients.
  public var drainTimeoutSeconds = 30
  /// Restarts of each worker that are allowed within `restartPeriodSeconds`.
  public var restartIntensity = 5
  /// Milliseconds of CPU time that one turn of a worker's loop may take; longer ones are logged.
  public var turnLimitMs = 100
  /// Length of the window in which restarts are counted.
  public var restartPeriodSeconds = 10
  /// Development mode (`--dev`): serves the demo page.
  public var dev = false

  /// Bytes of a request line and its headers; more: 431.
  public var maxRequestHeadBytes = 16 * 1024
  /// Seconds from the first byte of a request to the end of its head; longer: 408.
  public var requestHeadTimeoutSeconds = 30
  /// Seconds between two pieces of a request body; longer: 408.
  public var requestStallTimeoutSeconds = 30
  /// Seconds for the whole body of a request that isn't passed on as it comes, longer: 408; and for a WebSocket message from its
  /// first byte on, longer: closed with 1008.
  public var requestBodyTimeoutSeconds = 300
  /// Bytes per second that a client must send of a body, or take of an answer, on average over time in which it is the one waited
  /// for; slower: 408, or the end of the connection. 0: no bound.
  public var minBodyRate = 100
  /// Seconds over which that is averaged.
  public var minBodyRateWindowSeconds = 10
  /// Seconds between two requests of a connection; then it is closed.
  public var idleTimeoutSeconds = 75
  /// Seconds in which a client takes nothing of its answer; then the connection is closed.
  public var writeStallTimeoutSeconds = 75
  /// Streams open at once on one HTTP/2 connection; more are refused. 0: HTTP/2 isn't spoken.
  public var maxStreamsPerConnection = 128
  /// Bytes of bodies that one connection has sent and that aren't answered, and of its unfinished message; more: 429. Never less than
  /// `maxEventBytes`.
  public var maxAssemblyBytesPerConnection = 4 * 1024 * 1024
  /// The same bytes of all connections of a worker; more: 503. Never less than twice `maxEventBytes`.
  public var maxAssemblyBytesPerWorker = 64 * 1024 * 1024
  /// Bytes of an inbound event or message; more: 413.
  public var maxEventBytes = 1024 * 1024
  /// Subscriptions of one connection; more: 400.
  public var maxSubscriptionsPerConnection = 100
  /// Conditions (objects in `oneOf`) of all subscriptions of one connection; more: 400.
  public var maxConditionsPerConnection = 10_000
  /// Fields in all conditions of one connection; more: 400.
  public var maxConditionFieldsPerConnection = 20_000
  /// Bytes of the text of one connection's subscriptions; more: 413.
  public var maxSubscriptionBytesPerConnection = 256 * 1024
  /// Changes of one connection's subscriptions in a minute; more: 429.
  public var maxSubscriptionChangesPerMinute = 120
  /// Conditions of all connections of one connection worker; more: 503.
  public var maxConditionsPerWorker = 500_000
  /// Fields in all conditions of one connection worker; more: 503.
  public var maxConditionFieldsPerWorker = 2_000_000
  /// Bytes that one connection worker keeps of subscriptions; more: 503.
  public var maxSubscriptionBytesPerWorker = 256 * 1024 * 1024
  /// Conditions of two or more fields that wait for one value of a field, where their combination of fields isn't indexed;
  /// more: 503.
  public var maxConditionsPerFieldValue = 256
  /// Open connections of one connection worker; more: 503.
  public var maxOpenConnectionsPerWorker = 10_000
  /// Bytes that may wait for a slow client; events beyond stay in the log, from where it gets them at its own pace.
  public var maxUnsentBytes = 1024 * 1024
  /// Seconds in which a client takes nothing of what waits for it; then its connection is closed.
  public var slowConsumerSeconds = 30
  /// Events that a long-polling session holds between polls.
  public var longpollingMaxEvents = 200
  /// Bytes that a long-polling session holds between polls.
  public var longpollingMaxBytes = 1024 * 1024
  /// Seconds after which a poll without events is answered with an empty list.
  public var longpollingWaitSeconds = 20
  /// Seconds without a poll after which a long-polling session ends.
  public var longpollingTimeoutSeconds = 300
  /// Seconds without traffic after which a heartbeat or ping is sent.
  public var heartbeatSeconds = 15
  /// Seconds that a WebSocket client has to answer a ping.
  public var websocketPongTimeoutSeconds = 30
  /// Whether WebSockets are compressed whose clients offer it.
  public var websocketDeflate = true
  /// Seconds for which the wall clock must be elsewhere until tokens and events are judged by it; 0: they are at once.
  public var clockJumpDelaySeconds = 60
  /// Seconds in which a client's machine must acknowledge what was sent to it (TCP_USER_TIMEOUT, RFC 5482).
  public var tcpUserTimeoutSeconds = 120

  /// Bytes of the event ring of a connection worker, and of the control worker's.
  public var eventRingBytes = 16 * 1024 * 1024
  /// Bytes of the event ring of the streams worker.
  public var streamsRingBytes = 64 * 1024 * 1024
  /// Bytes of the ring for requests from one connection worker to the others.
  public var requestRingBytes = 4 * 1024 * 1024
  /// Bytes of a ring between a worker and those that call services for it.
  public var callRingBytes = 4 * 1024 * 1024
  /// Bytes of a ring for records to be produced, or for responses of services.
  public var responseRingBytes = 4 * 1024 * 1024
  /// Bytes of the ring in which the control worker keeps and spreads blacklist and presence.
  public var stateRingBytes = 64 * 1024 * 1024
  /// Bytes of the ring in which a connection worker reports its connections to the control worker.
  public var presenceRingBytes = 4 * 1024 * 1024

  /// Bytes of the ring in which the streams worker keeps its read positions.
  public var positionRingBytes = 4 * 1024 * 1024

  /// The defaults.
  public init() {}

  /// As a supervisor encodes them for its workers, which may be of another release: settings that it doesn't have are at their
  /// defaults, and those that this release doesn't have are passed over. (In the operator's files they are mistakes.)
  public init(encoded json: Data) throws {
    var all = try Self.members(of: JSONEncoder().encode(Settings()))
    all.merge(try Self.members(of: json)) { $1 }
    self = try JSONDecoder().decode(Settings.self, from: JSONSerialization.data(withJSONObject: all))
  }

  private static func members(of json: Data) throws -> [String: Any] {
    guard let members = try JSONSerialization.jsonObject(with: json) as? [String: Any] else {
      throw CocoaError(.coderInvalidValue)
    }
    return members
  }

  /// Every limit by the name of its key, for metrics; in the unit that the key has.
  public var limits: [(name: String, value: Int)] {
    SettingKey.limits.compactMap { key in Int(key.show(self)).map { (key.name, $0) } }
  }

  /// A ring has at most 64 readers: all connection workers, and the control worker.
  static let mostConnectionWorkers = 63
  /// Readers of one ring at most.
  static let mostProxyWorkers = 64

  /// The word for this machine's own addresses in `inboundAPIs`.
  static let loopback = "loopback"

  /// Peers that may read the API definitions on the inbound port, as `address` or `address/bits`.
  public var inboundAPINetworks: [String] {
    inboundAPIs.flatMap { $0 == Self.loopback ? NetworkSet.loopbackTexts : [$0] }
  }

  /// IP address that the management ports are bound to; empty: every address of the machine.
  public var managementAddress: String { apiBindAddress.isEmpty ? bindAddress : apiBindAddress }

  /// Whether the management ports serve peers on this machine only, but for health and metrics: as long as neither a token nor an
  /// address is chosen for them.
  public var isManagementForThisMachine: Bool { managementToken == nil && managementAddress.isEmpty }

  /// Whether the TLS ports are open.
  public var hasTLS: Bool { !httpsCertFiles.isEmpty }

  private static var processorCount: Int {
    min(max(ProcessInfo.processInfo.activeProcessorCount, 1), mostConnectionWorkers)
  }
}

/// Who may subscribe or submit.
public enum AccessCheck: Codable, Sendable, Equatable {
  /// Everybody.
  case none
  /// Whoever shows a valid token.
  case token
  /// Whoever the service at this address allows: an absolute `http` or `https` URL.
  case service(url: String)

  /// As it is configured.
  public var text: String {
    switch self {
    case .none: "no_check"
    case .token: "jwt_validation"
    case .service(let url): url
    }
  }

  /// The service to ask; nil: none.
  public var url: String? {
    if case .service(let url) = self { url } else { nil }
  }
}

/// Credentials for Kafka brokers.
public struct KafkaSASL: Codable, Sendable, Equatable {
  /// librdkafka's name of the mechanism: `PLAIN`.
  public var mechanism: String
  public var user: String
  public var password: Secret

  /// Credentials as given.
  public init(mechanism: String, user: String, password: Secret) {
    self.mechanism = mechanism
    self.user = user
    self.password = password
  }
}

extension Settings: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// `KEY=value` for every key in use, one line each; secrets as a placeholder.
  public var description: String {
    SettingKey.all.filter(\.isUsed).map { "\($0.name)=\($0.show(self))" }.joined(separator: "\n")
  }

  public var debugDescription: String { description }

  /// The same keys and values as `description`, so that dumping shows no secret either.
  public var customMirror: Mirror {
    Mirror(self, children: SettingKey.all.filter(\.isUsed).map { (label: $0.name, value: $0.show(self)) })
  }
}

// A text that must not appear in logs, error texts or status pages: passwords and keys.
// Printing, dumping or interpolating it shows a placeholder; only `revealed` gives the text. Encoding keeps the text,
// because the supervisor hands the settings to its workers in sealed memory: never write that encoding anywhere else.

/// A text that shows itself only when asked by name.
public struct Secret: Codable, Sendable, Equatable {
  /// The text itself. For the one call that needs it, never for a message.
  public let revealed: String

  /// Wraps `text`.
  public init(_ text: String) {
    revealed = text
  }

  public init(from decoder: any Decoder) throws {
    revealed = try decoder.singleValueContainer().decode(String.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(revealed)
  }
}

extension Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// What is shown instead of a secret.
  static let placeholder = "<secret>"

  public var description: String { Self.placeholder }
  public var debugDescription: String { Self.placeholder }
  public var customMirror: Mirror { Mirror(self, children: []) }
}
