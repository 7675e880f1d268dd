// Where a request comes from: the peer, or whom a trusted proxy says that it speaks for (RFC 7239, and its forerunner
// x-forwarded-for). Of a chain of proxies the last that isn't trusted counts: what stands before it anybody may have
// written.

import HTTP
import Kit
import Settings

/// Addresses whose forwarding fields are believed.
struct TrustedProxies: Sendable {
  private let networks: NetworkSet

  /// - Parameter texts: `address` or `address/bits`; what is none is left out.
  init(_ texts: [String]) { networks = NetworkSet(texts) }

  /// The address of the client that has sent the request; its peer's unless that is a trusted proxy.
  func client(of request: HTTPRequest) -> String {
    guard trusts(request.peer) else { return request.peer.text }
    let forwarded = request.headers["forwarded"]
    let chain =
      forwarded.isEmpty
      ? Self.addresses(request.headers["x-forwarded-for"]) : Self.forAddresses(forwarded)
    var client = request.peer.text
    for address in chain.reversed() {
      guard networks.contains(client) else { break }
      // Somebody who doesn't want to be named, or no address: the trail ends.
      guard let address, NetworkSet.isAddress(address) else { break }
      client = address
    }
    return client
  }

  /// What that address counts as where clients are counted; nil: it is none.
  func prefix(of request: HTTPRequest) -> AddressPrefix? {
    trusts(request.peer) ? AddressPrefix(client(of: request)) : request.peer.prefix
  }

  /// Whether the forwarding fields of this peer are believed.
  func trusts(_ peer: PeerAddress) -> Bool { networks.contains(peer.text) }

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
