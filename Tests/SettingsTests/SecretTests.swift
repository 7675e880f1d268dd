// Secrets come from files when asked, and never show.

import Testing

@testable import Settings

@Suite("Secrets")
struct SecretTests {
  @Test("Neither printing nor dumping settings shows a secret")
  func neverShown() throws {
    let settings = try load([
      "KAFKA_SASL": "plain:me:hunter2", "KAFKA_SSL_KEYFILE_PASS": "hunter2",
      "KAFKA_PROPERTIES": "sasl.password=hunter2",
    ]).settings
    var dumped = ""
    dump(settings, to: &dumped)
    dump(settings.kafkaSASL, to: &dumped)
    for text in [
      "\(settings)", String(reflecting: settings), "\(String(describing: settings.kafkaSASL))", dumped,
    ] {
      #expect(!text.contains("hunter2"))
    }
    #expect("\(settings)".contains("KAFKA_SASL=plain:me:<secret>"))
    #expect(settings.kafkaSASL?.password.revealed == "hunter2")
  }

  @Test("A mistake in a secret doesn't quote it")
  func notQuoted() {
    let found = mistakes([
      "KAFKA_SASL": "hunter2", "KAFKA_PROPERTIES": "hunter2", "MANAGEMENT_TOKEN": "hunter2",
    ])
    #expect(found.count == 3)
    #expect(!found.joined().contains("hunter2"))
  }

  @Test("A value can come from a file named by KEY_FILE, without its last line break")
  func fromFile() throws {
    try withFile("plain:me:hunter2\n", named: "sasl") { path in
      let settings = try load(["KAFKA_SASL_FILE": path]).settings
      #expect(settings.kafkaSASL?.password.revealed == "hunter2")
      try withFile("kafka_sasl_file: \(path)\n") { configuration in
        let settings = try load([:], ["--config", configuration]).settings
        #expect(settings.kafkaSASL?.user == "me")
      }
    }
  }

  @Test("A line break of Windows at the end of a value's file isn't part of the value either")
  func carriageReturn() throws {
    try withFile("plain:me:hunter2\r\n", named: "sasl") { path in
      let settings = try load(["KAFKA_SASL_FILE": path]).settings
      #expect(settings.kafkaSASL?.password.revealed == "hunter2")
    }
  }

  @Test("A value given both directly and by file is a mistake")
  func both() throws {
    try withFile("plain:me:x\n") { path in
      #expect(mistakes(["KAFKA_SASL": "plain:me:x", "KAFKA_SASL_FILE": path]).count == 1)
    }
  }

  @Test("A value's file that is missing is a mistake, and so is one that is empty and no secret's")
  func missing() throws {
    #expect(mistakes(["KAFKA_SASL_FILE": "/nonexistent"]).count == 1)
    try withFile("\n") { path in
      #expect(mistakes(["CORS_FILE": path]).count == 1)
    }
  }

  private static let secrets = SettingKey.all.filter(\.isSecret).map(\.name)

  @Test("13.A6: a secret that is empty counts as not set, with a warning that names it", arguments: secrets)
  func empty(name: String) throws {
    let defaults = try load([:]).settings
    for value in ["", " ", "\t\n"] {
      let loaded = try load([name: value])
      #expect(loaded.settings == defaults)
      #expect(loaded.warnings == ["environment \(name): \(name) is empty and counts as not set"])
    }
    for content in ["", "\n", " \r\n"] {
      try withFile(content) { path in
        let loaded = try load(["\(name)_FILE": path])
        #expect(loaded.settings == defaults)
        #expect(
          loaded.warnings == [
            "environment \(name)_FILE: the file of \(name) is empty, which counts as not set"
          ])
      }
    }
    #expect(try load(["\(name)_FILE": ""]).warnings.count == 1)
    for text in ["\(name):", "\(name): ''", "\(name): ~", "\(name): ' '"] {
      try withFile(text) { path in
        let loaded = try load([:], ["--config", path])
        #expect(loaded.settings == defaults)
        #expect(loaded.warnings == ["\(path):1:1: \(name) is empty and counts as not set"])
      }
    }
  }

  @Test("13.A6: an empty secret of a later layer leaves the one before")
  func emptyLater() throws {
    try withFile("jwt_secret_key: hunter2") { path in
      let settings = try load(["JWT_SECRET_KEY": ""], ["--config", path]).settings
      #expect(settings.jwtSecretKey?.revealed == "hunter2")
    }
  }

  @Test("13.A6: --set refuses secrets, shows none, and says where they can come from", arguments: secrets)
  func commandLine(name: String) throws {
    for arguments in [["--set", "\(name)=hunter2"], ["--set=\(name.lowercased())=hunter2"]] {
      let found = mistakes([:], arguments)
      #expect(found.count == 1)
      #expect(!found.joined().contains("hunter2"))
      for words in ["--set", "environment", "\(name)_FILE", "configuration file"] {
        #expect(found.joined().contains(words))
      }
    }
    try withFile("plain:me:0123456789abcdef,a=b") { path in
      let found = mistakes([:], ["--set", "\(name)_FILE=\(path)"])
      #expect(!found.contains { $0.contains("command line") })
    }
  }
}
