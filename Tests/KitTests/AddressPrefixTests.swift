// What counts as one client.

import Testing

@testable import Kit

@Suite("Address prefixes")
struct AddressPrefixTests {
  @Test("13.B11: An IPv4 address is one client, a /64 of IPv6 is one, and a mapped address is IPv4")
  func one() {
    for (text, shown) in [
      ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("255.255.255.255", "255.255.255.255"),
      ("2001:db8:0:1::1", "2001:db8:0:1::/64"), ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
      ("::1", "0:0:0:0::/64"), ("fe80::1%eth0", "fe80:0:0:0::/64"),
    ] {
      #expect(AddressPrefix(text)?.description == shown, "\(text)")
    }
    #expect(AddressPrefix("2001:db8:0:1::1") == AddressPrefix("2001:db8:0:1::2"))
    #expect(AddressPrefix("2001:db8:0:1::1") != AddressPrefix("2001:db8:0:2::1"))
    #expect(AddressPrefix("192.0.2.1") != AddressPrefix("192.0.2.2"))
    #expect(AddressPrefix("0.0.0.1") != AddressPrefix("::1"))
  }

  @Test(
    "What is no address is none",
    arguments: ["", "localhost", "192.0.2", "192.0.2.1.1", "2001:db8", "%eth0", "unknown"])
  func none(text: String) {
    #expect(AddressPrefix(text) == nil)
  }
}
