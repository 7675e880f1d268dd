// The readings that a service could give a path (contract §8). Paths are forwarded as they came, so what the service makes of them isn't
// known here: a path is judged by all that it could make of it. Pure, bytes in and bytes out, in lower case.
//
//   escapes       unreserved characters decoded (RFC 3986 §6.2.2.2); all but slashes; slashes alone; all. And once more: what a
//                 service has decoded may be decoded again by a library of its own
//   overlong      %c0%af and the like, which careless decoders take for '/' (RFC 3629 §10)
//   \             as /
//   //            merged; in front: merged there alone, or the mark of an authority (RFC 3986 §3.3), as in URLs of Python and Node
//   ;…            taken off each segment, off the last one, or with all that follows
//   ? #           that were escaped: cut off by who parses what was decoded
//   last /        taken off
//   last blanks   taken off, as who parses a decoded path as a URL does (WHATWG URL §4.4)
//
// The readings are all that any sequence of these steps makes, with at most two decodings. They are bounded in number and octets; a path
// with more is refused by whoever asks. Dot segments aren't resolved: a path that has one in any reading is refused as well, and so is one
// with a control character, which URLs lose in parsers and patterns don't see at an end: NUL anywhere, others that were escaped only
// beside secured endpoints.
//
// No reading: suffixes (`/admin.json`), blanks and dots at the end of a name inside, `%u002f`, characters that only look like '/', and
// what trimming takes off an end beside blanks and controls (`%c2%a0`, `%c2%85`, `%e2%80%83`), `+` for a blank.

import Kit

/// Goes through the distinct readings of one path, those that take the fewest decodings first.
struct PathReadings {
  /// Distinct readings of a path that is judged.
  static let maximumCount = 128
  /// Octets of all of them together.
  static let maximumBytes = 65_536
  static let maximumDecodings = 2

  private typealias Octet = PathOctet

  private var known: Set<[UInt8]> = []
  private var current: [[UInt8]] = []
  /// With one decoding more than those of `current`.
  private var later: [[UInt8]] = []
  private var place = 0
  private var decodings = 0
  private(set) var bytes = 0
  /// Whether there are more readings than are gone through.
  private(set) var exceedsBounds = false

  /// - Parameter path: folded. The first reading is the path itself, with a slash before it if it has none: so it is forwarded.
  init(_ path: some Collection<UInt8>) {
    note(path.first == Octet.slash ? Array(path) : [Octet.slash] + Array(path))
  }

  /// nil: there are no more, or they exceed the bounds.
  mutating func next() -> [UInt8]? {
    if place == current.count {
      (current, later, place) = (later, [], 0)
      decodings += 1
    }
    guard !exceedsBounds, place < current.count else { return nil }
    let reading = current[place]
    place += 1
    expand(reading)
    return reading
  }

  // MARK: Steps

  private mutating func expand(_ path: [UInt8]) {
    let traits = PathTraits(path)
    if traits.contains(.backslash) { note(path.map { $0 == Octet.backslash ? Octet.slash : $0 }) }
    if traits.contains(.emptySegment) { note(Self.merged(path)) }
    if path.starts(with: [Octet.slash, Octet.slash]) {
      let bare = path.drop { $0 == Octet.slash }
      note([Octet.slash] + bare)
      note(Self.absolute(bare.drop { $0 != Octet.slash }))
    }
    if traits.contains(.parameters) { expandParameters(path) }
    if traits.contains(.mark) { note(Self.absolute(path.prefix { !Octet.isMark($0) })) }
    if traits.contains(.highOctet) { note(Self.shortened(path)) }
    if path.last == Octet.slash { note(Self.withoutLast(Octet.slash, path)) }
    if path.last == Octet.blank { note(Self.withoutLast(Octet.blank, path)) }
    guard decodings < Self.maximumDecodings else { return }
    for decoding in traits.decodings { note(decoding.decoded(path), isDecoded: true) }
  }

  private mutating func expandParameters(_ path: [UInt8]) {
    note(Self.absolute(path.prefix { $0 != Octet.semicolon }))
    note(Self.withoutParameters(path))
    let lastSegment = path.lastIndex(of: Octet.slash) ?? 0
    if let mark = path[lastSegment...].firstIndex(of: Octet.semicolon) {
      note(Self.absolute(path[..<mark]))
    }
  }

  private mutating func note(_ reading: [UInt8], isDecoded: Bool = false) {
    guard !exceedsBounds, known.insert(reading).inserted else { return }
    bytes += reading.count
    guard known.count <= Self.maximumCount, bytes <= Self.maximumBytes else {
      exceedsBounds = true
      return
    }
    if isDecoded { later.append(reading) } else { current.append(reading) }
  }

  private static func absolute(_ path: ArraySlice<UInt8>) -> [UInt8] {
    path.isEmpty ? [Octet.slash] : Array(path)
  }

  private static func merged(_ path: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(path.count)
    for octet in path where octet != Octet.slash || result.last != Octet.slash { result.append(octet) }
    return result
  }

  private static func withoutLast(_ octet: UInt8, _ path: [UInt8]) -> [UInt8] {
    let end = path.lastIndex { $0 != octet }
    return end.map { Array(path[...$0]) } ?? [Octet.slash]
  }

  private static func withoutParameters(_ path: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(path.count)
    var isParameter = false
    for octet in path {
      if octet == Octet.semicolon { isParameter = true }
      if octet == Octet.slash { isParameter = false }
      if !isParameter { result.append(octet) }
    }
    return result
  }

  /// Overlong forms of ASCII characters as these characters.
  fileprivate static func shortened(_ path: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(path.count)
    var rest = path[...]
    while let first = rest.popFirst() {
      guard let (octet, count) = PathOctet.overlong(first, rest) else {
        result.append(first)
        continue
      }
      result.append(PathFolding.folded(octet))
      rest = rest.dropFirst(count)
    }
    return result
  }
}

struct PathDefect: Error, Equatable {
  /// What it has, and what was expected.
  let reason: String
  /// Whether it is one only where some endpoint needs a token.
  var isOnlyBesideSecured = false

  static let fragment = PathDefect(reason: "path with a '#', expected it escaped as %23 (RFC 3986 §3.3)")
  static let control = PathDefect(
    reason: "path with a control character, or with %00, perhaps escaped more than once, expected none")
  static let escapedControl = PathDefect(
    reason: "path with a control character (%00 to %1f, %7f), perhaps escaped more than once, expected none",
    isOnlyBesideSecured: true)
  static let dotSegment = PathDefect(
    reason: "path with a segment '.' or '..', perhaps escaped, expected it resolved (RFC 3986 §5.2.4)")
  static let tooManyReadings = PathDefect(
    reason: "path that could be read in more than \(PathReadings.maximumCount) ways, expected fewer escapes,"
      + " parameters and empty segments")

  static let tooCostly = PathDefect(
    reason:
      "path that takes too long to compare with the endpoints that could take it, expected a shorter one"
      + " with fewer escapes")

  /// The first defect of a path that isn't ordinary, those first that are some anywhere; nil: none.
  ///
  /// One look is enough: what is decoded twice, has every slash of any kind as a slash, and its segments cut at every mark, shows
  /// each control character and each dot segment that any other reading shows.
  init?(of path: some Collection<UInt8>) {
    guard !path.contains(PathOctet.fragmentMark) else {
      self = .fragment
      return
    }
    guard !path.contains(where: PathOctet.isControl) else {
      self = .control
      return
    }
    var whole = Array(path)
    for _ in 0..<PathReadings.maximumDecodings {
      let traits = PathTraits(whole)
      if !traits.decodings.isEmpty { whole = PathDecoding.all.decoded(whole) }
      if traits.contains(.highOctet) { whole = PathReadings.shortened(whole) }
    }
    if whole.contains(PathOctet.nul) {
      self = .control
    } else if Self.hasDotSegment(whole) {
      self = .dotSegment
    } else if whole.contains(where: PathOctet.isControl) {
      self = .escapedControl
    } else {
      return nil
    }
  }

  private init(reason: String, isOnlyBesideSecured: Bool = false) {
    self.reason = reason
    self.isOnlyBesideSecured = isOnlyBesideSecured
  }

  private static func hasDotSegment(_ path: [UInt8]) -> Bool {
    /// Of the segment so far; nil: it has something else.
    var dots: Int? = 0
    for octet in path {
      switch octet {
      case PathOctet.dot: dots = dots.map { $0 + 1 }
      case PathOctet.slash, PathOctet.backslash:
        if dots == 1 || dots == 2 { return true }
        dots = 0
      case PathOctet.semicolon, UInt8(ascii: "?"), PathOctet.fragmentMark:
        if dots == 1 || dots == 2 { return true }
        dots = nil
      default: dots = nil
      }
    }
    return dots == 1 || dots == 2
  }
}

/// What a service may decode of a path's escapes.
enum PathDecoding {
  case unreserved, allButSlashes, slashes, all

  /// Escapes that aren't whole stay as they are.
  func decoded(_ path: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(path.count)
    var index = 0
    while index < path.count {
      if path[index] == PathOctet.percent, let octet = PathOctet.escaped(in: path, at: index), takes(octet) {
        result.append(PathFolding.folded(octet))
        index += 3
      } else {
        result.append(path[index])
        index += 1
      }
    }
    return result
  }

  private func takes(_ octet: UInt8) -> Bool {
    let isSlash = octet == PathOctet.slash || octet == PathOctet.backslash
    return switch self {
    case .unreserved: PathOctet.isUnreserved(octet)
    case .allButSlashes: !isSlash
    case .slashes: isSlash
    case .all: true
    }
  }
}

/// Which steps a reading may take further.
struct PathTraits: OptionSet {
  let rawValue: UInt8

  static let escapedUnreserved = PathTraits(rawValue: 1)
  static let escapedSlash = PathTraits(rawValue: 2)
  static let escapedOther = PathTraits(rawValue: 4)
  static let backslash = PathTraits(rawValue: 8)
  static let emptySegment = PathTraits(rawValue: 16)
  static let parameters = PathTraits(rawValue: 32)
  static let mark = PathTraits(rawValue: 64)
  /// An octet that may begin an overlong form, or an escape that may be one.
  static let highOctet = PathTraits(rawValue: 128)

  init(rawValue: UInt8) { self.rawValue = rawValue }

  init(_ path: [UInt8]) {
    var traits: PathTraits = []
    var previous: UInt8 = 0
    for (index, octet) in path.enumerated() {
      switch octet {
      case PathOctet.percent: traits.formUnion(Self.escape(in: path, at: index))
      case PathOctet.backslash: traits.insert(.backslash)
      case PathOctet.semicolon: traits.insert(.parameters)
      case PathOctet.slash where previous == PathOctet.slash: traits.insert(.emptySegment)
      case _ where PathOctet.isMark(octet): traits.insert(.mark)
      case 0xC0...: traits.insert(.highOctet)
      default: break
      }
      previous = octet
    }
    self = traits
  }

  private static func escape(in path: [UInt8], at index: Int) -> PathTraits {
    guard let octet = PathOctet.escaped(in: path, at: index) else { return [] }
    if octet == PathOctet.slash || octet == PathOctet.backslash { return .escapedSlash }
    if PathOctet.isUnreserved(octet) { return .escapedUnreserved }
    return octet >= 0xC0 ? [.escapedOther, .highOctet] : .escapedOther
  }

  /// Those that make different paths.
  var decodings: [PathDecoding] {
    switch (contains(.escapedUnreserved), contains(.escapedSlash), contains(.escapedOther)) {
    case (false, false, false): []
    case (true, false, false), (false, true, false), (false, false, true): [.all]
    case (true, false, true): [.unreserved, .all]
    case (false, true, true): [.allButSlashes, .slashes, .all]
    case (true, true, false): [.allButSlashes, .slashes, .all]
    case (true, true, true): [.unreserved, .allButSlashes, .slashes, .all]
    }
  }
}

/// The octets that readings are about.
enum PathOctet {
  static let slash = UInt8(ascii: "/")
  static let backslash = UInt8(ascii: "\\")
  static let semicolon = UInt8(ascii: ";")
  static let percent = UInt8(ascii: "%")
  static let dot = UInt8(ascii: ".")
  static let fragmentMark = UInt8(ascii: "#")
  static let blank = UInt8(ascii: " ")
  static let nul: UInt8 = 0

  static func isControl(_ octet: UInt8) -> Bool { octet < blank || octet == 0x7F }

  /// Whether what begins with it is no path any more.
  static func isMark(_ octet: UInt8) -> Bool { octet == UInt8(ascii: "?") || octet == fragmentMark }

  /// Copies a path in lower case. True if it has a single reading: nothing in it that a service could read as something else.
  static func fold(_ path: UnsafeBufferPointer<UInt8>, into folded: UnsafeMutableBufferPointer<UInt8>) -> Bool
  {
    var isOdd = path.first != slash || (path.count > 1 && path[path.count - 1] == slash)
    var previous: UInt8 = 0
    for index in path.indices {
      let octet = path[index]
      folded.initializeElement(at: index, to: PathFolding.folded(octet))
      isOdd = isOdd || isOddOctet(octet, behind: previous)
      previous = octet
    }
    return !isOdd
  }

  /// Whether an octet, or it and the one before, may mean something else to a service.
  static func isOddOctet(_ octet: UInt8, behind previous: UInt8) -> Bool {
    switch octet {
    case percent, semicolon, backslash, fragmentMark: true
    case slash, dot: previous == slash
    default: isControl(octet)
    }
  }

  static func isUnreserved(_ octet: UInt8) -> Bool {
    ByteSet.wordBytes.contains(octet) || octet == UInt8(ascii: "-") || octet == dot
      || octet == UInt8(ascii: "~")
  }

  /// The octet that the escape at `index` stands for; nil: there is no whole one.
  static func escaped(in path: [UInt8], at index: Int) -> UInt8? {
    HTTPOctets.hexadecimalPair(path[(index + 1)...])
  }

  /// The ASCII character that an overlong form stands for, and how many octets follow its first one.
  static func overlong(_ first: UInt8, _ rest: ArraySlice<UInt8>) -> (octet: UInt8, count: Int)? {
    let count: Int
    switch first {
    case 0xC0, 0xC1: count = 1
    case 0xE0: count = 2
    case 0xF0: count = 3
    default: return nil
    }
    let others = rest.prefix(count)
    guard others.count == count, others.allSatisfy({ $0 & 0xC0 == 0x80 }) else { return nil }
    let value = others.reduce(count == 1 ? Int(first & 1) : 0) { $0 << 6 | Int($1 & 0x3F) }
    return value < 0x80 ? (UInt8(value), count) : nil
  }
}
