// The command line of `rig-supervisor`.

import Testing

@testable import Settings

@Suite("Command line")
struct CommandLineTests {
  @Test("Options choose what is done")
  func actions() throws {
    #expect(try load([:], []).action == .run)
    #expect(try load([:], ["--check-config"]).action == .checkConfig)
    #expect(try load([:], ["--version"]).action == .showVersion)
    #expect(try load([:], ["--help"]).action == .showHelp)
    #expect(try load([:], ["-h"]).action == .showHelp)
    #expect(try load([:], ["--dev"]).settings.dev)
    #expect(try !load([:], []).settings.dev)
  }

  @Test("Help and version don't need a right configuration")
  func helpWithBrokenEnvironment() throws {
    #expect(try load(["INBOUND_PORT": "x"], ["--help"]).action == .showHelp)
  }

  @Test(
    "A wrong option is named, with the nearest one",
    arguments: [
      (["--confg", "x"], "--confg: unknown option; did you mean --config?"),
      (["--config"], "--config: expected the path of a file"),
      (["--set"], "--set: expected KEY=VALUE"),
      (["--set", "INBOUND_PORT"], "--set: expected KEY=VALUE"),
      (["--set", "=1"], "--set: expected KEY=VALUE"),
      (["--dev=1"], "--dev: takes no value"),
      (
        ["--set", "INBOUND_PRT=1"], "--set INBOUND_PRT: unknown key 'INBOUND_PRT'; did you mean INBOUND_PORT?"
      ),
    ])
  func wrongOptions(arguments: [String], message: String) {
    #expect(mistakes([:], arguments).first == message)
  }

  @Test("--set takes values with equals signs, and the last one counts")
  func assignments() throws {
    let settings = try load(
      [:], ["--set", "JWT_JWKS=a=/1,b=/2", "--set=WATCHDOG_S=3", "--set", "watchdog_s=4"]
    ).settings
    #expect(settings.jwtKeySets.map(\.text) == ["a=/1", "b=/2"])
    #expect(settings.watchdogSeconds == 4)
  }

  @Test(
    "13.A6, 13.B12: help says what a setting opens, whom a limit counts, and what is answered beyond it",
    arguments: [
      ("BIND_ADDRESS", ["MANAGEMENT_TOKEN", "opens the API_ ports"]),
      ("API_BIND_ADDRESS", ["open to whoever reaches it"]),
      ("MANAGEMENT_TOKEN", ["this machine only", "health and metrics", "empty one counts as unset"]),
      ("JWT_SECRET_KEY", ["empty one counts as unset"]), ("MIN_BODY_RATE", ["408", "cut off"]),
      ("MAX_ASSEMBLY_BYTES_PER_CONNECTION", ["429", "1009"]),
      ("MAX_ASSEMBLY_BYTES_PER_WORKER", ["503", "1013", "last quarter"]),
      ("MAX_SHARE_OF_CLIENT", ["TRUSTED_PROXIES"]), ("MAX_CONNECTIONS_PER_ADDRESS", ["TRUSTED_PROXIES"]),
      ("RATE_LIMIT_PER_IP", ["TRUSTED_PROXIES"]), ("TRUSTED_PROXIES", ["limits by address"]),
      ("MAX_CONNECTIONS_PER_MINUTE", ["cursor"]),
      ("SUBMISSION_MAY_ADDRESS", ["KAFKA_SOURCE_TOPICS", "on or off"]),
      ("CORS", ["to services"]),
    ] as [(String, [String])])
  func helpOfLimits(name: String, words: [String]) throws {
    let key = try #require(SettingKey.all.first { $0.name == name })
    for word in words { #expect("\(key.help) \(key.form)".contains(word), "\(word)") }
  }

  @Test("Help lists every key with its default")
  func help() {
    for key in SettingKey.all {
      #expect(Settings.help.contains("  \(key.name)"), "\(key.name)")
    }
    #expect(Settings.help.contains("default 4000"))
  }
}
