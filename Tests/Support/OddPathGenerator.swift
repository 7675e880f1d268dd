// Request targets that mean more than they seem to: paths of a service, disguised in one to four ways.
//
// Only octets that HTTP/1.1 lets through in a request line: no blanks and control characters.

/// Repeats itself for the same seed.
public struct OddPathGenerator {
  private static let paths = [
    "/admin", "/admin/x", "/admin/users/7", "/public/y", "/public/admin", "/", "/administrator", "/public",
  ]
  private static let slashes = [
    "//", "///", "/./", "/x/../", "\\", "%2f", "%2F", "%5c", "%5C", "/%2e/", "/%2e%2E/", "/.;/", "/;/",
    "/;a=b/",
    "%252f", "%c0%af", "\\/", "/%5c", "/..;/", "%2f%2f",
  ]
  private static let ends = [
    "/", "//", ";x", ";a=b/c", "%3b", "%3bx", "%20", "#x", "%23x", "%3fx", "?x=1", "%00", "/.", "/..",
    "/x/..", ";",
    "/;x", "%2f", "\\", "?a=/../b", "%", "%zz", "%5c", "/%2e",
  ]
  /// What parsers of URLs take out, and anchors don't see.
  private static let blanks = ["%09", "%0a", "%0A", "%0d", "%2509", "%250a", "%20", "%01", "%7f"]
  private static let beginnings = [
    "//h", "/public/..", "/public/%2e%2e", "/.", "/h/..", "/", "/\\", "\\", "/public/..;", "/x;/..", "//h:80",
    "/public/..%2f", "/%2f", "/public%2f..", "/%5c", "///", "/%2e%2e", "/public/%252e%252e",
  ]

  private var random: SeededRandom

  public init(seed: UInt64) { random = SeededRandom(seed: seed) }

  public mutating func next() -> String {
    var path = choice(Self.paths)
    for _ in 0...below(4) { path = disguised(path) }
    return path.utf8.first == UInt8(ascii: "/") ? path : "/" + path
  }

  private mutating func disguised(_ path: String) -> String {
    switch below(10) {
    case 0, 1: return replaced(in: path, where: { $0 != "/" && $0 != "%" }, by: { $0.escaped(&$1) })
    case 2: return replaced(in: path, where: { $0 == "%" }, by: { _, _ in "%25" })
    case 3, 4: return replaced(in: path, where: { $0 == "/" }, by: { $1.choice(Self.slashes) })
    case 5: return path + choice(Self.ends)
    case 6: return choice(Self.beginnings) + path
    case 7: return replaced(in: path, where: \.isLowercase, by: { character, _ in character.uppercased() })
    case 8: return replaced(in: path, where: { $0 == "/" }, by: { _, _ in ";p=1/" })
    default:
      let place = path.index(path.startIndex, offsetBy: below(path.count + 1))
      return path[..<place] + choice(Self.blanks) + path[place...]
    }
  }

  /// One of the characters for which `isFit` holds, replaced; the text as it is if there is none.
  private mutating func replaced(
    in text: String, where isFit: (Character) -> Bool,
    by replacement: (Character, inout OddPathGenerator) -> String
  ) -> String {
    let places = text.indices.filter { isFit(text[$0]) }
    guard !places.isEmpty else { return text }
    let place = places[below(places.count)]
    return text[..<place] + replacement(text[place], &self) + text[text.index(after: place)...]
  }

  fileprivate mutating func below(_ bound: Int) -> Int { Int(random.next() >> 33) % bound }

  fileprivate mutating func choice(_ texts: [String]) -> String { texts[below(texts.count)] }
}

extension Character {
  /// Its octets escaped, in upper or lower case.
  fileprivate func escaped(_ generator: inout OddPathGenerator) -> String {
    let isUpper = generator.below(2) == 0
    return utf8.map { octet in
      let digits = String(octet, radix: 16, uppercase: isUpper)
      return "%" + (digits.utf8.count < 2 ? "0" : "") + digits
    }.joined()
  }
}
