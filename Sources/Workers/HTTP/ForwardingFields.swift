// The fields by which proxies say for whom they ask. A request with one of them comes from elsewhere, whoever its peer is.

import NIOHTTP1

public enum ForwardingFields {
  /// In lower case, with `-`.
  static let names = [
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
    "x-forwarded-server", "x-real-ip", "via",
  ]

  /// The name, as it came, of the first of these fields; nil: there is none. `_` counts like `-`.
  public static func first(in headers: HTTPHeaders) -> String? {
    headers.first { name, _ in names.contains { areEqual($0, name) } }?.name
  }

  private static func areEqual(_ known: String, _ name: String) -> Bool {
    known.utf8.count == name.utf8.count
      && zip(known.utf8, name.utf8).allSatisfy { known, byte in
        byte == known || byte | 0x20 == known || (known == UInt8(ascii: "-") && byte == UInt8(ascii: "_"))
      }
  }
}
