// What counts as one client where clients are counted by their addresses: an address of IPv4, the first 64 bits of one of IPv6 (RFC 4291
// §2.5.4: the rest is the host's to choose, and a host may choose all of them).

import Glibc

/// An address of IPv4, or a /64 of IPv6.
public struct AddressPrefix: Hashable, Sendable {
  private let isIPv4: Bool
  /// In host order; of IPv4 the lower half.
  private let bits: UInt64

  /// nil: `address` is none. IPv4 in IPv6's clothes (::ffff:192.0.2.1) is IPv4; a zone (%eth0) is left out.
  public init?(_ address: String) {
    var four = in_addr()
    if inet_pton(AF_INET, address, &four) == 1 {
      isIPv4 = true
      bits = UInt64(UInt32(bigEndian: four.s_addr))
      return
    }
    var six = in6_addr()
    guard inet_pton(AF_INET6, String(address.prefix { $0 != "%" }), &six) == 1 else { return nil }
    let (high, low) = withUnsafeBytes(of: six) {
      (
        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      )
    }
    let isMapped = high == 0 && low >> 32 == 0xffff
    isIPv4 = isMapped
    bits = isMapped ? low & 0xffff_ffff : high
  }
}

extension AddressPrefix: CustomStringConvertible {
  /// `192.0.2.1`, `2001:db8:0:1::/64`.
  public var description: String {
    guard isIPv4 else {
      let groups = (0..<4).map { String(bits >> (48 - 16 * $0) & 0xffff, radix: 16) }
      return groups.joined(separator: ":") + "::/64"
    }
    return (0..<4).map { String(bits >> (24 - 8 * $0) & 0xff) }.joined(separator: ".")
  }
}
