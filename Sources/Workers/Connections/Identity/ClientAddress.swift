// Where a request comes from: the peer, or whom a trusted proxy says that it speaks for (RFC 7239, and its forerunner
// x-forwarded-for). Of a chain of proxies the last that isn't trusted counts: what stands before it anybody may have
// written.

import Glibc

/// What a client is counted by.
enum ClientNetwork {
  private static let networkBytes = 8

  /// Of an IPv4 address itself; of an IPv6 address its network of 64 bits, of which one client has all addresses (RFC 4291 §2.5.4).
  /// What is no address is taken as it is.
  static func name(of address: String) -> String {
    guard address.utf8.contains(UInt8(ascii: ":")) else { return address }
    // The zone says on which link it is (RFC 4007 §11).
    let plain = address.prefix { $0 != "%" }
    guard let bytes = TrustedProxies.bytes(String(plain)) else { return address }
    guard bytes.count > networkBytes else { return bytes.map { String($0) }.joined(separator: ".") }
    let groups = stride(from: 0, to: networkBytes, by: 2).map { place in
      String(UInt16(bytes[place]) << 8 | UInt16(bytes[place + 1]), radix: 16)
    }
    return groups.joined(separator: ":") + "::/64"
  }
}

/// Addresses whose forwarding fields are believed.
struct TrustedProxies: Sendable {
  private struct Network {
    let address: [UInt8]
    let bits: Int
  }

  private var networks: [Network] = []

  /// - Parameter texts: `address` or `address/bits`; what is none is left out.
  init(_ texts: [String]) {
    for text in texts {
      let parts = text.split(separator: "/", maxSplits: 1)
      guard let first = parts.first, let address = Self.bytes(String(first)) else { continue }
      let bits = parts.count == 2 ? Int(parts[1]) ?? -1 : address.count * 8
      if (0...address.count * 8).contains(bits) { networks.append(Network(address: address, bits: bits)) }
    }
  }

  /// The client's address; `peer` unless that is a trusted proxy.
  func client(peer: String, forwarded: [String], xForwardedFor: [String]) -> String {
    let peer = Self.plain(peer)
    guard !networks.isEmpty, isTrusted(peer) else { return peer }
    let chain = forwarded.isEmpty ? Self.addresses(xForwardedFor) : Self.forAddresses(forwarded)
    var client = peer
    for address in chain.reversed() {
      guard isTrusted(client) else { break }
      // Somebody who doesn't want to be named, or no address: the trail ends.
      guard let address, Self.bytes(address) != nil else { break }
      client = address
    }
    return client
  }

  /// Whether the forwarding fields of this peer are believed.
  func trusts(_ peer: String) -> Bool { !networks.isEmpty && isTrusted(Self.plain(peer)) }

  /// A socket for both families shows IPv4 as ::ffff:192.0.2.1.
  static func plain(_ peer: String) -> String {
    let mapped = "::ffff:"
    return peer.hasPrefix(mapped) && peer.utf8.contains(UInt8(ascii: "."))
      ? String(peer.dropFirst(mapped.count)) : peer
  }

  private func isTrusted(_ text: String) -> Bool {
    guard let address = Self.bytes(text) else { return false }
    return networks.contains { network in
      guard network.address.count == address.count else { return false }
      let whole = network.bits / 8
      guard network.address[..<whole] == address[..<whole] else { return false }
      let rest = network.bits % 8
      return rest == 0 || (network.address[whole] ^ address[whole]) >> (8 - rest) == 0
    }
  }

  /// The address in network order; nil: it is none. IPv4 in IPv6's clothes is IPv4.
  fileprivate static func bytes(_ text: String) -> [UInt8]? {
    var four = in_addr()
    if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
    var six = in6_addr()
    guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
    let bytes = withUnsafeBytes(of: six) { Array($0) }
    let isMapped = bytes[..<10].allSatisfy { $0 == 0 } && bytes[10] == 0xff && bytes[11] == 0xff
    return isMapped ? Array(bytes[12...]) : bytes
  }

  private static func addresses(_ fields: [String]) -> [String?] {
    fields.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }.map { address($0) }
  }

  /// The `for` parameters, one for each element; nil where there is none.
  private static func forAddresses(_ fields: [String]) -> [String?] {
    fields.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }.map { element in
      for pair in element.split(separator: ";") {
        let parts = pair.split(separator: "=", maxSplits: 1)
        guard parts.count == 2, parts[0].filter({ $0 != " " && $0 != "\t" }).lowercased() == "for" else {
          continue
        }
        return address(parts[1])
      }
      return nil
    }
  }

  /// `192.0.2.1`, `192.0.2.1:80`, `"[2001:db8::1]:80"`, `2001:db8::1`, without quotes, brackets and port.
  private static func address(_ text: Substring) -> String? {
    let text = text.filter { $0 != " " && $0 != "\t" && $0 != "\"" }
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      return String(text[text.index(after: text.startIndex)..<end])
    }
    if text.filter({ $0 == ":" }).count == 1, let colon = text.firstIndex(of: ":") {
      return String(text[..<colon])
    }
    return text.isEmpty ? nil : text
  }
}
