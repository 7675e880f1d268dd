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

  @Test("A secret's file that is missing or empty is a mistake")
  func missing() throws {
    #expect(mistakes(["KAFKA_SASL_FILE": "/nonexistent"]).count == 1)
    try withFile("\n") { path in
      #expect(mistakes(["KAFKA_SASL_FILE": path]).count == 1)
    }
  }
}
