// Where the management port listens and whom it serves, as far as settings say.

import Testing

@testable import Settings

@Suite("Settings of the management port")
struct ManagementSettingTests {
  private static let token = "0123456789abcdef"

  @Test("13.A6: it is for this machine only as long as neither a token nor an address is chosen")
  func chosen() throws {
    let table: [([String: String], address: String, isForThisMachine: Bool)] = [
      ([:], "", true), (["BIND_ADDRESS": ""], "", true), (["API_BIND_ADDRESS": ""], "", true),
      (["MANAGEMENT_TOKEN": ""], "", true), (["MANAGEMENT_TOKEN": Self.token], "", false),
      (["BIND_ADDRESS": "0.0.0.0"], "0.0.0.0", false),
      (["API_BIND_ADDRESS": "127.0.0.1"], "127.0.0.1", false),
      (["BIND_ADDRESS": "192.0.2.1", "API_BIND_ADDRESS": "::1"], "::1", false),
    ]
    for (environment, address, isForThisMachine) in table {
      let settings = try load(environment).settings
      #expect(settings.managementAddress == address, "\(environment)")
      #expect(settings.isManagementForThisMachine == isForThisMachine, "\(environment)")
    }
  }

  @Test("13.A6: that it is open to everybody is said aloud, naming the setting that has opened it")
  func openness() throws {
    for (environment, name) in [
      (["BIND_ADDRESS": "0.0.0.0"], "BIND_ADDRESS"), (["API_BIND_ADDRESS": "::"], "API_BIND_ADDRESS"),
      (["API_BIND_ADDRESS": "192.0.2.1", "BIND_ADDRESS": "127.0.0.1"], "API_BIND_ADDRESS"),
      (["BIND_ADDRESS": "10.0.0.1", "MANAGEMENT_TOKEN": ""], "BIND_ADDRESS"),
    ] {
      let said = try load(environment).warnings.filter { $0.contains("OPEN") }
      #expect(said.count == 1, "\(environment)")
      #expect(said.first?.hasPrefix("\(name): ") == true && said.first?.contains("MANAGEMENT_TOKEN") == true)
    }
    for environment in [
      [:], ["BIND_ADDRESS": "127.0.0.1"], ["API_BIND_ADDRESS": "127.1.2.3"], ["API_BIND_ADDRESS": "::1"],
      ["API_BIND_ADDRESS": "0:0:0:0:0:0:0:1"], ["BIND_ADDRESS": "::ffff:127.0.0.1"],
      ["BIND_ADDRESS": "0.0.0.0", "API_BIND_ADDRESS": "127.0.0.1"],
      ["BIND_ADDRESS": "0.0.0.0", "MANAGEMENT_TOKEN": Self.token],
    ] {
      #expect(try load(environment).warnings.isEmpty, "\(environment)")
    }
  }

  @Test("Addresses to bind to are IP addresses", arguments: ["BIND_ADDRESS", "API_BIND_ADDRESS"])
  func addresses(name: String) {
    for address in ["127.0.0.1", "0.0.0.0", "::", "::1", "2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.1"] {
      #expect(mistakes([name: address]).isEmpty, "\(address)")
    }
    for address in [
      "localhost", "127.1", "1.2.3.4.5", "256.0.0.1", "[::1]", "::1%", "127.0.0.1:4010", "10.0.0.0/8", "*",
      "10.0.0.1%eth0", "%eth0", " ",
    ] {
      #expect(mistakes([name: address]).first?.contains("no IP address") == true, "\(address)")
    }
  }

  @Test("Hosts are names without scheme, port and path")
  func hosts() throws {
    #expect(
      try load(["API_HOSTS": "Rig.example.com, rig.svc."]).settings.apiHosts == [
        "rig.example.com", "rig.svc.",
      ])
    for name in ["http://rig", "rig.example:4010", "rig/", "*.example.com", ".example.com", "[::1]", "a b"] {
      #expect(mistakes(["API_HOSTS": name]).first?.contains("no host name") == true, "\(name)")
    }
    for host in ["Rig.example.com", "rig-1", "10.0.0.1", "::1", ""] {
      #expect(try load(["HOST": host]).settings.host == host)
    }
    for host in ["http://rig", "/dev/zero", "rig:4000", "a b", "\u{1}", String(repeating: "a", count: 256)] {
      #expect(mistakes(["HOST": host]).first?.contains("no host name") == true, "\(host)")
    }
  }

  @Test(
    "13.A6: who may read API definitions on the inbound port is nobody, this machine, or a list of networks")
  func inboundAPIs() throws {
    func networks(_ text: String) throws -> [String] {
      try load(["INBOUND_APIS": text]).settings.inboundAPINetworks
    }
    let loopback = ["127.0.0.0/8", "::1"]
    #expect(Settings().inboundAPINetworks == loopback)
    #expect(try networks("") == loopback, "empty counts as not set")
    #expect(try networks("loopback") == loopback && networks("Loopback") == loopback)
    #expect(try networks("off") == [] && networks("OFF") == [])
    #expect(try networks("172.17.0.0/16") == ["172.17.0.0/16"])
    #expect(
      try networks("loopback, 172.17.0.0/16,2001:db8::/32") == loopback + ["172.17.0.0/16", "2001:db8::/32"])
    for text in ["off,loopback", "10.0.0.0/8,off", "public", "10.0.0.0/33", "172.17.0.0/16 10.0.0.0/8"] {
      #expect(mistakes(["INBOUND_APIS": text]).count == 1, "\(text)")
    }
    for (text, shown) in [("off", "off"), ("loopback,10.0.0.1", "loopback,10.0.0.1")] {
      #expect(try load(["INBOUND_APIS": text]).settings.description.contains("INBOUND_APIS=\(shown)"))
    }
  }
}
