// Where a request comes from: the peer, or whom a trusted proxy says that it speaks for (RFC 7239, and its forerunner
// x-forwarded-for). Of a chain of proxies the last that isn't trusted counts: what stands before it anybody may have
// written.

import Settings

/// Addresses whose forwarding fields are believed.
struct TrustedProxies: Sendable {
  private let networks: NetworkSet

  /// - Parameter texts: `address` or `address/bits`; what is none is left out.
  init(_ texts: [String]) { networks = NetworkSet(texts) }

  /// The client's address; `peer` unless that is a trusted proxy.
  func client(peer: String, forwarded: [String], xForwardedFor: [String]) -> String {
    let peer = Self.plain(peer)
    guard networks.contains(peer) else { return peer }
    let chain = forwarded.isEmpty ? Self.addresses(xForwardedFor) : Self.forAddresses(forwarded)
    var client = peer
    for address in chain.reversed() {
      guard networks.contains(client) else { break }
      // Somebody who doesn't want to be named, or no address: the trail ends.
      guard let address, NetworkSet.isAddress(address) else { break }
      client = address
    }
    return client
  }

  /// Whether the forwarding fields of this peer are believed.
  func trusts(_ peer: String) -> Bool { networks.contains(Self.plain(peer)) }

  /// A socket for both families shows IPv4 as ::ffff:192.0.2.1.
  static func plain(_ peer: String) -> String {
    let mapped = "::ffff:"
    return peer.hasPrefix(mapped) && peer.utf8.contains(UInt8(ascii: "."))
      ? String(peer.dropFirst(mapped.count)) : peer
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
