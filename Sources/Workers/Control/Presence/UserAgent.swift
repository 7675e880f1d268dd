// What a User-Agent field says of a device. Browsers name each other for historical reasons: the most particular name
// counts, so the order of the tables matters. Everything that isn't known is "unknown"; nothing here fails.

struct UserAgent: Equatable {
  enum Device: String { case desktop, mobile, tablet, bot, unknown }

  var device: Device
  var os: String
  var browser: String
  /// Digits and dots; empty: unknown.
  var browserVersion: String

  static let unknown = "unknown"

  /// What comes before the version, and whose it is.
  private static let browsers: [(mark: String, name: String)] = [
    ("Edg/", "Edge"), ("EdgA/", "Edge"), ("EdgiOS/", "Edge"), ("Edge/", "Edge"), ("OPR/", "Opera"),
    ("OPiOS/", "Opera"), ("Opera/", "Opera"), ("SamsungBrowser/", "Samsung Internet"),
    ("FxiOS/", "Firefox"), ("Firefox/", "Firefox"), ("CriOS/", "Chrome"), ("Chrome/", "Chrome"),
    ("curl/", "curl"),
  ]
  private static let systems: [(mark: String, name: String)] = [
    ("iPhone", "iOS"), ("iPad", "iOS"), ("iPod", "iOS"), ("Android", "Android"), ("Windows", "Windows"),
    ("CrOS", "Chrome OS"), ("Mac OS X", "macOS"), ("Macintosh", "macOS"), ("Linux", "Linux"),
  ]
  private static let bots = ["bot", "crawler", "spider", "slurp", "facebookexternalhit", "headlesschrome"]
  /// A version has a handful of numbers.
  private static let maxVersionBytes = 32

  init(_ text: String) {
    os = Self.systems.first { text.contains($0.mark) }?.name ?? Self.unknown
    (browser, browserVersion) = Self.browser(text)
    device = Self.device(text, os: os)
  }

  private static func browser(_ text: String) -> (String, String) {
    for (mark, name) in browsers {
      guard let version = version(behind: mark, text) else { continue }
      // The old Opera said 9.80 forever, and what it really was further behind.
      return (name, mark == "Opera/" ? Self.version(behind: "Version/", text) ?? version : version)
    }
    if text.contains("Safari/"), let version = version(behind: "Version/", text) {
      return ("Safari", version)
    }
    return (unknown, "")
  }

  private static func version(behind mark: String, _ text: String) -> String? {
    guard let range = text.firstRange(of: mark) else { return nil }
    return String(
      text[range.upperBound...].prefix(maxVersionBytes).prefix { $0 == "." || ("0"..."9").contains($0) })
  }

  private static func device(_ text: String, os: String) -> Device {
    let lower = text.lowercased()
    if bots.contains(where: { lower.contains($0) }) { return .bot }
    switch os {
    case "iOS": return text.contains("iPad") ? .tablet : .mobile
    case "Android": return text.contains("Mobile") ? .mobile : .tablet
    case unknown: return .unknown
    default: return .desktop
    }
  }
}
