// Everything that can be configured, as typed and validated values. Made by `Settings.load` in the supervisor and handed
// to the workers as JSON in sealed memory: never write that JSON anywhere else, it holds the secrets. Printing settings
// is safe: `description` shows every key by its name and no secret.

import Foundation

/// The gateway's configuration. The initial values are the defaults. What a setting means is said at its key (EventKeys, IdentityKeys,
/// OperationKeys), its unit by its name; here only what its type adds to that. Texts and lists that are empty, and nil, are not set.
public struct Settings: Codable, Sendable, Equatable {
  public var inboundPort = 4000
  public var apiHTTPPort = 4010
  public var inboundHTTPSPort = 4001
  public var apiHTTPSPort = 4011
  public var httpsCertFiles: [String] = []
  public var httpsKeyFiles: [String] = []
  public var httpsKeyFilePass: Secret?
  /// Name under which others reach this gateway; empty: unknown. Never bound to.
  public var host = ""
  public var bindAddress = ""
  /// IP address that the management ports are bound to; empty: as `bindAddress` says.
  public var apiBindAddress = ""
  public var apiHosts: [String] = []
  /// Origins of web pages that may call the inbound port: `*`, origins, patterns (`OriginList`).
  public var cors = ["*"]
  public var maxConnectionsPerMinute = 5_000
  public var maxConnectionsPerUser = 0
  public var maxConnectionsPerAddress = 0
  public var connectionLimitCloses = "oldest"

  /// Constraint fields of each event type.
  public var extractors = ExtractorTable()
  public var kafkaUserField = "user"
  public var subscriptionCheck = AccessCheck.none
  public var submissionCheck = AccessCheck.none
  public var submissionMayAddress = true

  public var jwtSecretKey: Secret?
  /// Names of the signature algorithms that tokens may use; empty: HS256, or with nothing but a JWK set all that
  /// aren't symmetric.
  public var jwtAlgorithms: [String] = []
  /// JWK sets: one for tokens of every issuer, or any number, each for those of its own.
  public var jwtKeySets: [KeySetSource] = []
  public var jwtJWKSRefreshSeconds = 60
  /// Where in a token the session is: RFC 6901 tokens.
  public var jwtSessionPointer = ["jti"]
  /// Where in a token the user is: RFC 6901 tokens; nil: `/user`, or else `/sub`.
  public var jwtUserPointer: [String]?
  public var jwtRolesPointer = ["roles"]
  public var jwtAudiences: [String] = []
  public var jwtIssuers: [String] = []
  public var jwtRequireExpiry = true
  public var jwtLeewaySeconds = 0
  public var jwtCloseOnExpiry = true
  public var maySwitchUser = false
  public var privilegedRoles: [String] = []
  /// Only users with this role are listed by presence; empty: all; nil: all too, but on RIG 1's paths those whom RIG 1 lists.
  public var sessionRole: String?
  public var jwtBlacklistDefaultExpiryHours = 1
  public var presenceGraceSeconds = 5
  /// Addresses of the proxies whose forwarding headers count, as `address` or `address/bits`.
  public var trustedProxies: [String] = []
  public var checkTimeoutMs = 5_000
  public var checkMaxConcurrent = 100
  public var checkMaxWaiting = 1_000
  public var circuitFailures = 5
  public var circuitOpenSeconds = 10
  public var proxyWorkers = 1
  /// API definitions that the gateway starts with: a JSON list, or the path of a file that holds one; empty: none.
  public var proxyConfig = ""
  public var proxyCACertFile = ""
  public var proxyRecvTimeoutMs = 5_000
  public var proxyKafkaResponseTopics = ["rig-proxy-response"]
  /// Those of them that have no events.
  public var topicsOfResponsesOnly: [String] {
    proxyKafkaResponseTopics.filter { !kafkaSourceTopics.contains($0) }
  }
  public var proxyKafkaResponseTimeoutMs = 5_000
  public var proxyHTTPAsyncResponseTimeoutMs = 5_000
  public var maxWaitingRequests = 10_000
  public var maxProxiedRequests = 1_000
  public var maxTunnels = 10_000
  public var maxRetryBodyBytes = 64 * 1024
  public var maxShareOfClient = 50
  public var maxShareOfAPI = 80
  public var requestLog: [String] = []
  public var requestLogTopic = "rig-request-log"
  public var rateLimitEnabled = false
  public var rateLimitPerIP = true
  public var rateLimitPerSecond = 50
  public var rateLimitBurst = 100
  /// Peers that may read the API definitions on the inbound port: networks, and `loopback`; empty: nobody.
  public var inboundAPIs = [Settings.loopback]
  /// Token that the management port demands of everybody; nil: it is open.
  public var managementToken: Secret?
  public var stateDir = ""
  public var maxBlacklistEntries = 1_000_000

  /// Whether there is Kafka; nil: if there are brokers. Once settings are loaded there are brokers only if there is Kafka.
  public var kafkaEnabled: Bool?
  public var kafkaBrokers: [String] = []
  public var kafkaSourceTopics = ["rig"]
  public var kafkaGroupID = "rig-kafka-to-filter"
  public var nodeName = ""
  /// The consumer group of this gateway: another one's commits are nothing to it.
  public var kafkaGroupOfNode: String { nodeName.isEmpty ? kafkaGroupID : "\(kafkaGroupID).\(nodeName)" }
  public var kafkaSASL: KafkaSASL?
  public var kafkaSSLEnabled = false
  public var kafkaSSLCACertFile = ""
  public var kafkaSSLCertFile = ""
  public var kafkaSSLKeyFile = ""
  public var kafkaSSLKeyFilePass: Secret?
  /// Further properties of librdkafka, passed through as they are. May hold secrets.
  public var kafkaProperties: [String: String] = [:]
  public var kafkaPublishTimeoutMs = 5_000
  public var kafkaRestartDelayMs = 2_000

  public var logLevel = "info"
  public var logFormat = "auto"

  public var connectionWorkers = Settings.processorCount
  public var watchdogSeconds = 10
  public var drainTimeoutSeconds = 30
  public var lingerSeconds = 600
  public var restartIntensity = 5
  public var turnLimitMs = 100
  public var restartPeriodSeconds = 10
  public var dev = false

  public var maxRequestHeadBytes = 16 * 1024
  public var requestHeadTimeoutSeconds = 30
  public var requestStallTimeoutSeconds = 30
  public var requestBodyTimeoutSeconds = 300
  public var minBodyRate = 100
  public var minBodyRateWindowSeconds = 10
  public var idleTimeoutSeconds = 75
  public var writeStallTimeoutSeconds = 75
  public var maxStreamsPerConnection = 128
  public var maxAssemblyBytesPerConnection = 4 * 1024 * 1024
  public var maxAssemblyBytesPerWorker = 64 * 1024 * 1024
  public var maxEventBytes = 1024 * 1024
  public var maxSubscriptionsPerConnection = 100
  public var maxConditionsPerConnection = 10_000
  public var maxConditionFieldsPerConnection = 20_000
  public var maxSubscriptionBytesPerConnection = 256 * 1024
  public var maxSubscriptionChangesPerMinute = 120
  public var maxConditionsPerWorker = 500_000
  public var maxConditionFieldsPerWorker = 2_000_000
  public var maxSubscriptionBytesPerWorker = 256 * 1024 * 1024
  public var maxConditionsPerFieldValue = 256
  public var maxOpenConnectionsPerWorker = 10_000
  public var maxUnsentBytes = 1024 * 1024
  public var slowConsumerSeconds = 30
  public var longpollingMaxEvents = 200
  public var longpollingMaxBytes = 1024 * 1024
  public var longpollingWaitSeconds = 20
  public var longpollingTimeoutSeconds = 300
  public var heartbeatSeconds = 15
  public var websocketPongTimeoutSeconds = 30
  public var websocketDeflate = true
  public var clockJumpDelaySeconds = 60
  public var tcpUserTimeoutSeconds = 120

  public var eventRingBytes = 16 * 1024 * 1024
  public var streamsRingBytes = 64 * 1024 * 1024
  public var requestRingBytes = 4 * 1024 * 1024
  public var callRingBytes = 4 * 1024 * 1024
  public var responseRingBytes = 4 * 1024 * 1024
  public var stateRingBytes = 64 * 1024 * 1024
  public var presenceRingBytes = 4 * 1024 * 1024

  public var positionRingBytes = 4 * 1024 * 1024
  /// How long the keeper of a dead connection worker's sockets waits for an heir; 0: there are no keepers.
  public var keeperTTLSeconds = 30
  public var ledgerBytes = 256 * 1024 * 1024
  /// Connection workers' processes that wait in reserve.
  public var warmSpares = 0

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

  /// A ring has at most 64 readers: the control worker, and two seats of each connection worker.
  static let mostConnectionWorkers = 31
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

  public var hasTLS: Bool { !httpsCertFiles.isEmpty }

  private static var processorCount: Int {
    min(max(ProcessInfo.processInfo.activeProcessorCount, 1), mostConnectionWorkers)
  }
}

/// Who may subscribe or submit.
public enum AccessCheck: Codable, Sendable, Equatable {
  case none
  /// Whoever shows a valid token.
  case token
  /// Whoever the service at this address allows: an absolute `http` or `https` URL.
  case service(url: String)

  public var text: String {
    switch self {
    case .none: "no_check"
    case .token: "jwt_validation"
    case .service(let url): url
    }
  }

  public var url: String? {
    if case .service(let url) = self { url } else { nil }
  }
}

public struct KafkaSASL: Codable, Sendable, Equatable {
  /// librdkafka's name of the mechanism: `PLAIN`.
  public var mechanism: String
  public var user: String
  public var password: Secret

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
  static let placeholder = "<secret>"

  public var description: String { Self.placeholder }
  public var debugDescription: String { Self.placeholder }
  public var customMirror: Mirror { Mirror(self, children: []) }
}
