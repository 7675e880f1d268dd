// Sets of IP addresses, as settings name them: an address, or a network in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3).

import Glibc

/// Addresses and networks, IPv4 and IPv6. An IPv4 address in IPv6's clothes (`::ffff:192.0.2.1`) is the IPv4 address.
public struct NetworkSet: Sendable {
  private struct Network {
    let address: [UInt8]
    let bits: Int
  }

  /// The machine itself: 127.0.0.0/8 (RFC 1122 §3.2.1.3) and ::1 (RFC 4291 §2.5.3).
  public static let loopback = NetworkSet(loopbackTexts)
  static let loopbackTexts = ["127.0.0.0/8", "::1"]

  private var networks: [Network] = []

  /// - Parameter texts: `address` or `address/bits`; what is neither is left out.
  public init(_ texts: [String]) {
    for text in texts {
      let parts = text.split(separator: "/", maxSplits: 1)
      guard let first = parts.first, let address = Self.bytes(String(first)) else { continue }
      let bits = parts.count == 2 ? Int(parts[1]) ?? -1 : address.count * 8
      if (0...address.count * 8).contains(bits) { networks.append(Network(address: address, bits: bits)) }
    }
  }

  public var isEmpty: Bool { networks.isEmpty }

  /// Whether an address belongs to one of the networks; what is none belongs to none.
  public func contains(_ text: String) -> Bool {
    guard !networks.isEmpty, let address = Self.bytes(text) else { return false }
    return networks.contains { network in
      guard network.address.count == address.count else { return false }
      let whole = network.bits / 8
      guard network.address[..<whole] == address[..<whole] else { return false }
      let rest = network.bits % 8
      return rest == 0 || (network.address[whole] ^ address[whole]) >> (8 - rest) == 0
    }
  }

  public static func isAddress(_ text: String) -> Bool { bytes(text) != nil }

  /// The address in network order; nil: it is none.
  private static func bytes(_ text: String) -> [UInt8]? {
    var four = in_addr()
    if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
    var six = in6_addr()
    guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
    let bytes = withUnsafeBytes(of: six) { Array($0) }
    let isMapped = bytes[..<10].allSatisfy { $0 == 0 } && bytes[10] == 0xff && bytes[11] == 0xff
    return isMapped ? Array(bytes[12...]) : bytes
  }
}
