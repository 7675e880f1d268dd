// Which addresses belong to a set of networks.

import Testing

@testable import Settings

struct NetworkSetTests {
  @Test("Addresses are in networks of their family, also IPv4 ones in IPv6's clothes")
  func contains() {
    let set = NetworkSet(["10.0.0.0/8", "192.0.2.1", "2001:db8::/33", "x", "10.0.0.0/33", "::1/129"])
    for inside in ["10.1.2.3", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8:7fff::"] {
      #expect(set.contains(inside), "\(inside)")
    }
    for outside in ["11.0.0.0", "192.0.2.2", "2001:db8:8000::", "::1", "", "x", "10.0.0", "::10.1.2.3"] {
      #expect(!set.contains(outside), "\(outside)")
    }
    #expect(!NetworkSet(["x"]).contains("10.0.0.1") && NetworkSet(["x"]).isEmpty)
    #expect(NetworkSet(["0.0.0.0/0"]).contains("255.1.1.1") && !NetworkSet(["0.0.0.0/0"]).contains("::1"))
  }
}
