// Which endpoint takes a request: the first that matches of the first definition in order of creation.
//
// Paths are compared as they came, and handed on as they came: an escaped slash in a name stays one. What is handed on always
// begins with '/', so behind the service's origin it stays with that service.
//
// Whether a token is needed is judged by every reading that a service could give the path (PathReadings): one that leads to an
// endpoint with a token, of whatever definition, demands it. Each reading is routed as if it had been sent, so an open endpoint that
// comes before a secured one is an exception for it as well.

/// An endpoint and the definition it belongs to. Every request holds one: an object is held at the price of one reference.
@usableFromInline
final class APIRoute: Sendable {
  @usableFromInline let definition: APIDefinition
  @usableFromInline let endpoint: APIEndpoint

  init(_ definition: APIDefinition, _ endpoint: APIEndpoint) {
    self.definition = definition
    self.endpoint = endpoint
  }
}

/// The endpoint that takes a request.
public struct APIMatch: Sendable {
  @usableFromInline let route: APIRoute
  @inlinable public var definition: APIDefinition { _read { yield route.definition } }
  @inlinable public var endpoint: APIEndpoint { _read { yield route.endpoint } }
  /// The path to ask the service for. Begins with '/'; has a query only if `path_replacement` has one.
  public let path: String
  @usableFromInline let securing: APIRoute?
  /// Whose `auth` says where the token is that the request needs: the endpoint's own definition, or that of the endpoint which
  /// another reading of the path leads to. nil: none is needed.
  @inlinable public var authority: APIDefinition? { securing?.definition }
}

public enum APIRouting: Sendable {
  case match(APIMatch)
  case notFound
  /// The path is known, but with these methods (sorted; never empty).
  case otherMethods([String])
  /// No endpoint may take it: `reason` names what is wrong with the path.
  case refused(reason: String)
}

/// All active definitions, compiled. Immutable, to be shared by threads.
public struct APIRouter: Sendable {
  /// What one look-up took, for tests and benchmarks.
  struct Effort: Equatable {
    var patterns = 0
    var steps = 0
    /// Readings of a path that isn't ordinary, and the octets of all of them.
    var readings = 0
    var readingBytes = 0
  }

  /// The methods of endpoints that take a request.
  private struct Methods {
    let own: Int32
    /// That of endpoints for GET if the request's is HEAD; -1: none.
    let related: Int32

    func contains(_ method: Int32) -> Bool { method == own || method == related }
  }

  private struct Entry: Sendable {
    let route: APIRoute
    let method: Int32
    let pattern: PathPattern
  }

  private static let get = "GET"
  private static let head = "HEAD"

  /// One per pattern, in the order in which they win.
  private let entries: [Entry]
  private let methods: [String]
  private let methodNumbers: [String: Int32]
  private let prefixes: PrefixIndex
  /// Those of endpoints that demand a token.
  private let securedMethods: Set<Int32>
  /// Whether a path without its last slash may be one that demands a token: some patterns need the slash, some services don't.
  private let securesLastSlash: Bool

  /// - Parameter definitions: in order of creation. Inactive and versioned ones are left out, as by RIG.
  public init(_ definitions: some Sequence<APIDefinition>) {
    var entries: [Entry] = []
    var methods: [String] = []
    var methodNumbers: [String: Int32] = [:]
    for definition in definitions where definition.isActive && !definition.isVersioned {
      for endpoint in definition.endpoints {
        let number = methodNumbers[endpoint.method] ?? Int32(methods.count)
        if Int(number) == methods.count {
          methods.append(endpoint.method)
          methodNumbers[endpoint.method] = number
        }
        let route = APIRoute(definition, endpoint)
        for pattern in endpoint.patterns {
          entries.append(Entry(route: route, method: number, pattern: pattern))
        }
      }
    }
    self.entries = entries
    self.methods = methods
    self.methodNumbers = methodNumbers
    prefixes = PrefixIndex(entries.map(\.pattern.prefix))
    let secured = entries.filter(\.route.endpoint.isSecured)
    securedMethods = Set(secured.map(\.method))
    securesLastSlash = secured.contains { $0.pattern.needsLastSlash }
  }

  /// A router without definitions: everything is not found.
  public init() {
    self.init([])
  }

  public var isEmpty: Bool { entries.isEmpty }

  /// Finds the endpoint. HEAD is taken by endpoints for GET too.
  /// - Parameter path: of the request, without query, as it came.
  public func match(method: String, path: String) -> APIRouting {
    var effort = Effort()
    return match(method: method, path: path, &effort)
  }

  func match(method: String, path: String, _ effort: inout Effort) -> APIRouting {
    guard !entries.isEmpty else { return .notFound }
    var path = path
    return path.withUTF8 { bytes in
      withUnsafeTemporaryAllocation(of: UInt8.self, capacity: bytes.count) { folded in
        let isOrdinary = PathOctet.fold(bytes, into: folded)
        let folded = UnsafeBufferPointer(rebasing: folded[..<bytes.count])
        if !isOrdinary, let defect = PathDefect(of: folded) { return .refused(reason: defect.reason) }
        return match(method: method, path: bytes, folded: folded, isOrdinary: isOrdinary, &effort)
      }
    }
  }

  private func match(
    method: String, path: UnsafeBufferPointer<UInt8>, folded: UnsafeBufferPointer<UInt8>, isOrdinary: Bool,
    _ effort: inout Effort
  ) -> APIRouting {
    let methods = Methods(
      own: methodNumbers[method] ?? -1, related: method == Self.head ? methodNumbers[Self.get] ?? -1 : -1)
    var candidates: [Int] = []
    var others: [Int] = []
    prefixes.forEachCandidate(of: folded) { number in
      if methods.contains(entries[number].method) { candidates.append(number) } else { others.append(number) }
    }
    // New for each request: its captures are those of the one match there is.
    var matcher = PatternMatcher()
    defer { effort.steps += matcher.steps }
    candidates.sort()
    for number in candidates {
      let entry = entries[number]
      let replacement = entry.route.endpoint.replacement
      let slots = replacement.map { 2 * min($0.highestGroup, entry.pattern.groupCount) } ?? 0
      effort.patterns += 1
      guard entry.pattern.matches(folded: folded, slots: slots, &matcher) else { continue }
      let rewritten = Self.path(path, replacement, captures: matcher.captures)
      do throws(PathDefect) {
        if replacement != nil { try Self.check(rewritten: rewritten) }
        let securing =
          entry.route.endpoint.isSecured
          ? entry.route : try securingRoute(folded, methods, isOrdinary: isOrdinary, &matcher, &effort)
        return .match(APIMatch(route: entry.route, path: rewritten, securing: securing))
      } catch {
        return .refused(reason: error.reason)
      }
    }
    let allowed = allowedMethods(others, folded, &matcher, &effort)
    return allowed.isEmpty ? .notFound : .otherMethods(allowed)
  }

  // MARK: Readings

  /// The endpoint with a token that a reading of the path leads to.
  private func securingRoute(
    _ path: UnsafeBufferPointer<UInt8>, _ methods: Methods, isOrdinary: Bool, _ matcher: inout PatternMatcher,
    _ effort: inout Effort
  ) throws(PathDefect) -> APIRoute? {
    guard !isOrdinary || securesLastSlash,
      securedMethods.contains(methods.own) || securedMethods.contains(methods.related)
    else { return nil }
    if isOrdinary { return slashlessRoute(Array(path), methods, &matcher, &effort) }
    var readings = PathReadings(path)
    defer { effort.readingBytes += readings.bytes }
    while let reading = readings.next() {
      effort.readings += 1
      if let route = securedRoute(reading, methods, &matcher, &effort) { return route }
      if let route = slashlessRoute(reading, methods, &matcher, &effort) { return route }
    }
    guard !readings.exceedsBounds else { throw .tooManyReadings }
    return nil
  }

  /// The endpoint that would take the reading if it ended with a slash, which its pattern needs, if it demands a token.
  private func slashlessRoute(
    _ reading: [UInt8], _ methods: Methods, _ matcher: inout PatternMatcher, _ effort: inout Effort
  ) -> APIRoute? {
    guard securesLastSlash, reading.last != PathOctet.slash else { return nil }
    return securedRoute(reading + [PathOctet.slash], methods, needsLastSlash: true, &matcher, &effort)
  }

  /// The endpoint that takes the reading, if it demands a token.
  private func securedRoute(
    _ reading: [UInt8], _ methods: Methods, needsLastSlash: Bool = false, _ matcher: inout PatternMatcher,
    _ effort: inout Effort
  ) -> APIRoute? {
    reading.withUnsafeBufferPointer { reading in
      var candidates: [Int] = []
      var mayBeSecured = false
      prefixes.forEachCandidate(of: reading) { number in
        guard methods.contains(entries[number].method) else { return }
        candidates.append(number)
        mayBeSecured = mayBeSecured || entries[number].route.endpoint.isSecured
      }
      guard mayBeSecured else { return nil }
      candidates.sort()
      let taking = candidates.first { number in
        effort.patterns += 1
        return entries[number].pattern.matches(folded: reading, &matcher)
      }
      guard let entry = taking.map({ entries[$0] }), entry.route.endpoint.isSecured,
        !needsLastSlash || entry.pattern.needsLastSlash
      else { return nil }
      return entry.route
    }
  }

  /// What was put in may have made a dot segment: `/books../x` with `/books(.*)` and `/v1/\1`.
  private static func check(rewritten: String) throws(PathDefect) {
    let path = rewritten.utf8.prefix { $0 != UInt8(ascii: "?") }
    var previous: UInt8 = 0
    let isOdd = path.contains { octet in
      defer { previous = octet }
      return PathOctet.isOddOctet(octet, behind: previous)
    }
    if isOdd, let defect = PathDefect(of: path) { throw defect }
  }

  private static func path(
    _ path: UnsafeBufferPointer<UInt8>, _ replacement: PathReplacement?, captures: [Int32]
  ) -> String {
    if let replacement {
      return String(decoding: replacement.rewritten(path, captures: captures), as: UTF8.self)
    }
    let text = String(decoding: path, as: UTF8.self)
    return path.first == UInt8(ascii: "/") ? text : "/" + text
  }

  /// The methods with which one of `others` matches; each is looked for once.
  private func allowedMethods(
    _ others: [Int], _ folded: UnsafeBufferPointer<UInt8>, _ matcher: inout PatternMatcher,
    _ effort: inout Effort
  ) -> [String] {
    var found = Set<Int32>()
    for number in others where !found.contains(entries[number].method) {
      effort.patterns += 1
      if entries[number].pattern.matches(folded: folded, &matcher) { found.insert(entries[number].method) }
    }
    var allowed = Set(found.map { methods[Int($0)] })
    if allowed.contains(Self.get) { allowed.insert(Self.head) }
    return allowed.sorted()
  }
}
