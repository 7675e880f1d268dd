// Loads the configuration: defaults, then file, environment and command line, later wins. Collects every mistake of
// every layer before it refuses; never runs with a value that it did not understand.

import Glibc

public struct LoadedSettings: Sendable, Equatable {
  public let settings: Settings
  /// One text per thing that is accepted but probably not what was meant. No secrets.
  public let warnings: [String]
  public let action: Action
}

extension Settings {
  /// Loads and validates the whole configuration.
  ///
  /// - Parameters:
  ///   - arguments: the command line without the program's name: `--config FILE`, `--set KEY=VALUE`, `--dev`,
  ///     `--check-config`, `--version`, `--help`.
  ///   - environment: the process's environment. A name of ours with `_FILE` added holds the path of a file with the
  ///     value. An empty value counts as not set, except for lists.
  /// - Throws: every mistake with its place.
  public static func load(
    arguments: [String], environment: [String: String]
  ) throws(SettingsErrors) -> LoadedSettings {
    var mistakes: [SettingsMistake] = []
    var warnings: [String] = []
    let request = CommandLineRequest(arguments, mistakes: &mistakes)
    if request.action == .showHelp || request.action == .showVersion {
      guard mistakes.isEmpty else { throw SettingsErrors(mistakes: mistakes) }
      return LoadedSettings(settings: Settings(), warnings: [], action: request.action)
    }

    var layers: [SettingsLayer] = []
    if let path = request.configPath { layers.append(.file(path, mistakes: &mistakes)) }
    layers.append(.environment(environment, warnings: &warnings))
    layers.append(.commandLine(request.assignments, mistakes: &mistakes))

    var settings = Settings()
    settings.dev = request.isDev
    var given: Set<String> = []
    for layer in layers {
      given.formUnion(layer.apply(to: &settings, mistakes: &mistakes, warnings: &warnings))
    }
    if !given.contains("KEEPER_TTL_S") {
      settings.keeperTTLSeconds = settings.watchdogSeconds + Self.patienceSeconds
    }
    if !given.contains("WARM_SPARES"), Self.memoryBytes >= Self.roomyBytes {
      settings.warmSpares = 1
    }
    let brokers = settings.kafkaBrokers
    if settings.kafkaEnabled == false { settings.kafkaBrokers = [] }
    mistakes += settings.contradictions
    guard mistakes.isEmpty else { throw SettingsErrors(mistakes: mistakes) }
    return LoadedSettings(
      settings: settings,
      warnings: warnings + settings.openness + settings.untoldEnds + settings.idle(given, brokers: brokers),
      action: request.action)
  }

  /// That everybody may use the management ports, if it is so.
  private var openness: [String] {
    guard managementToken == nil, !managementAddress.isEmpty, !NetworkSet.loopback.contains(managementAddress)
    else {
      return []
    }
    let name = apiBindAddress.isEmpty ? "BIND_ADDRESS" : "API_BIND_ADDRESS"
    return [
      "\(name): THE MANAGEMENT PORTS ARE OPEN to whoever reaches \(managementAddress): to publish events, to end sessions, and to "
        + "decide where requests go; set MANAGEMENT_TOKEN, or a loopback address"
    ]
  }

  /// That the system ends connections before their clients are told why, if it is so.
  private var untoldEnds: [String] {
    guard tcpUserTimeoutSeconds <= slowConsumerSeconds else { return [] }
    return [
      "TCP_USER_TIMEOUT_S, SLOW_CONSUMER_S: \(tcpUserTimeoutSeconds) and \(slowConsumerSeconds); clients that take nothing are cut "
        + "off by the system without being told; expected TCP_USER_TIMEOUT_S to be the longer one"
    ]
  }

  /// By how much KEEPER_TTL_S is longer than WATCHDOG_S if it isn't set.
  private static let patienceSeconds = 20

  /// Memory of a machine that has room for a process that only waits.
  private static let roomyBytes = 4 << 30
  private static var memoryBytes: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) }

  /// The ring keeps a record only if it is at most an eighth of its capacity, and a prepared event may need as many
  /// bytes again for its extracted fields as for its JSON.
  private static let ringBytesPerEventByte = 16

  /// What no single key can say: values that don't go together.
  private var contradictions: [SettingsMistake] {
    var found: [SettingsMistake] = []
    func add(_ place: String, _ message: String) {
      found.append(SettingsMistake(place: place, message: message))
    }
    var ports = [("INBOUND_PORT", inboundPort), ("API_HTTP_PORT", apiHTTPPort)]
    if hasTLS { ports += [("INBOUND_HTTPS_PORT", inboundHTTPSPort), ("API_HTTPS_PORT", apiHTTPSPort)] }
    for (index, (name, port)) in ports.enumerated() where port != 0 {
      for (other, same) in ports[(index + 1)...] where same == port {
        add("\(name), \(other)", "both are \(port); expected two ports")
      }
    }
    if httpsCertFiles.count != httpsKeyFiles.count {
      add(
        "HTTPS_CERTFILE, HTTPS_KEYFILE",
        "\(httpsCertFiles.count) and \(httpsKeyFiles.count) files; expected a key for every certificate")
    }
    if httpsKeyFilePass != nil, httpsCertFiles.isEmpty, httpsKeyFiles.isEmpty {
      add(
        "HTTPS_KEYFILE_PASS",
        "is set, but HTTPS_CERTFILE and HTTPS_KEYFILE are not; expected all or none")
    }
    for issuer in issuersWithoutUse {
      add(
        "JWT_ISS, JWT_JWKS", "JWT_JWKS has keys of '\(issuer)', which JWT_ISS lacks; expected it in both")
    }
    if !kafkaBrokers.isEmpty, kafkaSourceTopics.isEmpty {
      add("KAFKA_SOURCE_TOPICS", "is empty, but KAFKA_BROKERS is set; expected topics")
    }
    if kafkaEnabled == true, kafkaBrokers.isEmpty {
      add(
        "KAFKA_ENABLED, KAFKA_BROKERS",
        "the one is true, the other one empty; expected brokers (RIG's default was localhost:9092)")
    }
    if kafkaBrokers.isEmpty, requestLog.contains("kafka") {
      let why = kafkaEnabled == false ? "KAFKA_ENABLED is false" : "KAFKA_BROKERS is empty"
      add("REQUEST_LOG", "has kafka, but \(why); expected brokers")
    }
    if kafkaSSLCertFile.isEmpty != kafkaSSLKeyFile.isEmpty {
      add("KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE", "only one of them is set; expected both or none")
    }
    if keeperTTLSeconds > 0, keeperTTLSeconds <= watchdogSeconds {
      add(
        "KEEPER_TTL_S, WATCHDOG_S",
        "\(keeperTTLSeconds) and \(watchdogSeconds); expected KEEPER_TTL_S to be longer, or 0: a successor that hangs is found after "
          + "WATCHDOG_S, and what it hasn't taken is still to be there for the next one")
    }
    let needed = maxEventBytes * Self.ringBytesPerEventByte
    for (name, size) in [("EVENT_RING_BYTES", eventRingBytes), ("STREAMS_RING_BYTES", streamsRingBytes)]
    where size < needed {
      add(
        "\(name), MAX_EVENT_BYTES",
        "a ring of \(size) bytes can't take an event of \(maxEventBytes) bytes; expected \(needed) or more")
    }
    return found
  }

  /// Issuers of key sets that no token could be verified by.
  private var issuersWithoutUse: [String] {
    guard !jwtIssuers.isEmpty else { return [] }
    return jwtKeySets.compactMap(\.issuer).filter { issuer in
      !jwtIssuers.contains { $0.utf8.elementsEqual(issuer.utf8) }
    }
  }
}
