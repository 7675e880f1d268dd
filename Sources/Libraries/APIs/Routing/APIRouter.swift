// Which endpoint takes a request: the first that matches of the first definition in order of creation.
//
// Paths are compared as they came, and handed on as they came: an escaped slash in a name stays one. What is handed on always
// begins with '/', so behind the service's origin it stays with that service.
//
// Whether a token is needed is judged by every reading that a service could give the path (PathReadings): one that leads to an
// endpoint with a token, of whatever definition, demands it. Each reading is routed as if it had been sent, so an open endpoint that
// comes before a secured one is an exception for it as well.
//
// A path without a last slash is also that of the endpoint that takes it with one, since many services don't mind the slash:
//
//   secured           open             /admin
//   /admin/.*         /.*              needs the token: what is open is wider than this place
//   /admin/.*         /[^/]+           needs the token
//   /admin/.*         /(admin|login)   is open: whoever defined it meant this place, with or without alternatives
//   /([^/]+)/.*       /[^/]+           is open: the same place, and what is below it; groups make no difference
//   /.* (behind it)   /[^/]+           is open: it takes the path without the slash as well, and comes too late

//
// What a look-up may cost is bounded, whatever the path and however many patterns: one that takes more is refused, since what its
// other readings lead to isn't known.

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
  /// Whether the token may stand in `Authorization` without a scheme, as RIG 1 had it: where its kind of path demands one.
  @inlinable public var takesBareToken: Bool { securing?.endpoint.isOfRIG1 ?? false }
}

public enum APIRouting: Sendable {
  case match(APIMatch)
  case notFound
  /// The path is known, but with these methods (sorted; never empty).
  case otherMethods([String])
  /// No endpoint may take it: `reason` names what is wrong with the path.
  case refused(reason: String)
}

/// All active definitions, compiled. Immutable, to be shared by threads; an object, since a look-up would copy all of it otherwise.
public final class APIRouter: Sendable {
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

  /// Steps of the matcher for all patterns and readings of one look-up: 9 ms of a release build at 18 ns a step, so that two of the
  /// longest heads in one turn stay below 20 ms. A path of 16 kB against `/.*` takes 98,000.
  static let maximumSteps = 500_000
  /// What putting a candidate into order is worth, in steps.
  private static let stepsPerCandidate = 4

  private static let get = "GET"
  private static let head = "HEAD"

  /// One per pattern, in the order in which they win.
  private let entries: [Entry]
  private let methods: [String]
  private let methodNumbers: [String: Int32]
  private let prefixes: PrefixIndex
  /// Those of endpoints that demand a token.
  private let securedMethods: Set<Int32>
  /// The entries of endpoints with a token that may take a path with a slash at its end, and their prefixes.
  private let slashEntries: [Int]
  private let slashPrefixes: PrefixIndex

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
    let secured = entries.indices.filter { entries[$0].route.endpoint.isSecured }
    securedMethods = Set(secured.map { entries[$0].method })
    slashEntries = secured.filter { entries[$0].pattern.mayEndWithSlash }
    slashPrefixes = PrefixIndex(slashEntries.map { entries[$0].pattern.prefix })
  }

  /// A router without definitions: everything is not found.
  public convenience init() {
    self.init([])
  }

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
      withUnsafeTemporaryAllocation(of: UInt8.self, capacity: bytes.count + 1) { folded in
        let isOrdinary = PathOctet.fold(bytes, into: folded)
        folded.initializeElement(at: bytes.count, to: PathOctet.slash)
        let slashed = UnsafeBufferPointer(rebasing: folded[...bytes.count])
        let methods = methods(takenFor: method)
        if !isOrdinary, let defect = PathDefect(of: slashed.dropLast()),
          !defect.isOnlyBesideSecured || areSecured(methods)
        {
          return .refused(reason: defect.reason)
        }
        // New for each request: its captures are those of the one match there is.
        var matcher = PatternMatcher(limit: Self.maximumSteps)
        let routing = match(
          methods, path: bytes, slashed: slashed, isOrdinary: isOrdinary, &matcher, &effort)
        effort.steps += matcher.steps
        return matcher.isExhausted ? .refused(reason: PathDefect.tooCostly.reason) : routing
      }
    }
  }

  private func methods(takenFor method: String) -> Methods {
    Methods(
      own: methodNumbers[method] ?? -1, related: method == Self.head ? methodNumbers[Self.get] ?? -1 : -1)
  }

  /// Whether an endpoint with a token has one of the methods.
  private func areSecured(_ methods: Methods) -> Bool {
    securedMethods.contains(methods.own) || securedMethods.contains(methods.related)
  }

  /// - Parameter slashed: the path, folded, with a slash behind it.
  private func match(
    _ methods: Methods, path: UnsafeBufferPointer<UInt8>, slashed: UnsafeBufferPointer<UInt8>,
    isOrdinary: Bool,
    _ matcher: inout PatternMatcher, _ effort: inout Effort
  ) -> APIRouting {
    let folded = UnsafeBufferPointer(rebasing: slashed.dropLast())
    var candidates: [Int] = []
    var others: [Int] = []
    prefixes.forEachCandidate(of: folded) { number in
      if methods.contains(entries[number].method) { candidates.append(number) } else { others.append(number) }
    }
    matcher.spend(others.count)
    guard order(&candidates, &matcher) else { return .notFound }
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
          ? entry.route
          : isOrdinary
            ? routeBehindSlash(slashed, taker: number, methods, &matcher, &effort)
            : try securingRoute(folded, methods, &matcher, &effort)
        return .match(APIMatch(route: entry.route, path: rewritten, securing: securing))
      } catch {
        return .refused(reason: error.reason)
      }
    }
    let allowed = allowedMethods(others, folded, &matcher, &effort)
    return allowed.isEmpty ? .notFound : .otherMethods(allowed)
  }

  /// Puts numbers of patterns into the order in which they win. False: there are more than a look-up may take.
  private func order(_ candidates: inout [Int], _ matcher: inout PatternMatcher) -> Bool {
    matcher.spend(Self.stepsPerCandidate * candidates.count)
    guard !matcher.isExhausted else { return false }
    candidates.sort()
    return true
  }

  // MARK: Readings

  /// The endpoint with a token that a reading of the path leads to.
  private func securingRoute(
    _ path: UnsafeBufferPointer<UInt8>, _ methods: Methods, _ matcher: inout PatternMatcher,
    _ effort: inout Effort
  ) throws(PathDefect) -> APIRoute? {
    guard areSecured(methods) else { return nil }
    var readings = PathReadings(path)
    defer { effort.readingBytes += readings.bytes }
    while !matcher.isExhausted, let reading = readings.next() {
      effort.readings += 1
      if let route = securedRoute(reading, methods, &matcher, &effort) { return route }
    }
    guard !readings.exceedsBounds else { throw .tooManyReadings }
    return nil
  }

  /// The endpoint that takes the reading, or would with a slash behind it, if it demands a token.
  private func securedRoute(
    _ reading: [UInt8], _ methods: Methods, _ matcher: inout PatternMatcher, _ effort: inout Effort
  ) -> APIRoute? {
    (reading + [PathOctet.slash]).withUnsafeBufferPointer { slashed in
      let reading = UnsafeBufferPointer(rebasing: slashed.dropLast())
      let mayNeedSlash = mayMeetBehindSlash(slashed, methods, &matcher)
      var candidates: [Int] = []
      var mayBeSecured = mayNeedSlash
      prefixes.forEachCandidate(of: reading) { number in
        matcher.spend(1)
        guard methods.contains(entries[number].method) else { return }
        candidates.append(number)
        mayBeSecured = mayBeSecured || entries[number].route.endpoint.isSecured
      }
      guard mayBeSecured, order(&candidates, &matcher) else { return nil }
      let taker = candidates.first { takes($0, reading, &matcher, &effort) }
      if let taker, entries[taker].route.endpoint.isSecured { return entries[taker].route }
      guard mayNeedSlash else { return nil }
      return routeBehindSlash(slashed, taker: taker, methods, &matcher, &effort)
    }
  }

  private func takes(
    _ number: Int, _ path: UnsafeBufferPointer<UInt8>, _ matcher: inout PatternMatcher, _ effort: inout Effort
  ) -> Bool {
    effort.patterns += 1
    return entries[number].pattern.matches(folded: path, &matcher)
  }

  // MARK: The missing last slash

  /// Whether a pattern with a token begins like the path with a slash behind it.
  private func mayMeetBehindSlash(
    _ slashed: UnsafeBufferPointer<UInt8>, _ methods: Methods, _ matcher: inout PatternMatcher
  ) -> Bool {
    guard !slashEntries.isEmpty, !slashed.dropLast().isEmpty, slashed[slashed.count - 2] != PathOctet.slash
    else { return false }
    var isMet = false
    slashPrefixes.forEachCandidate(of: slashed) { index in
      matcher.spend(1)
      let entry = entries[slashEntries[index]]
      let fits = entry.pattern.literal.map { $0.count == slashed.count } ?? true
      isMet = isMet || (fits && methods.contains(entry.method))
    }
    return isMet
  }

  /// The endpoint with a token that takes the path with a slash behind it, but not without, and isn't kept from it by an open one.
  ///
  /// Ordinary paths come here as well, so it needs no memory of its own.
  /// - Parameters:
  ///   - slashed: the path with a slash behind it.
  ///   - taker: the open one that takes the path without it; nil: none does.
  private func routeBehindSlash(
    _ slashed: UnsafeBufferPointer<UInt8>, taker: Int?, _ methods: Methods, _ matcher: inout PatternMatcher,
    _ effort: inout Effort
  ) -> APIRoute? {
    guard mayMeetBehindSlash(slashed, methods, &matcher) else { return nil }
    let path = UnsafeBufferPointer(rebasing: slashed.dropLast())
    let opening = taker.map { entries[$0].pattern }
    // Whoever wrote out the paths that it takes meant this place.
    guard opening?.isOfNames != true else { return nil }
    let isWider = taker.map { takes($0, slashed, &matcher, &effort) } ?? false
    if let opening, !isWider, opening.prefix.elementsEqual(path) { return nil }
    var winner = isWider ? taker ?? .max : .max
    var secured: Int?
    slashPrefixes.forEachCandidate(of: slashed) { index in
      let number = slashEntries[index]
      guard number < winner, methods.contains(entries[number].method),
        takes(number, slashed, &matcher, &effort)
      else { return }
      // Without the slash it came too late.
      if let taker, number > taker, takes(number, path, &matcher, &effort) { return }
      (winner, secured) = (number, number)
    }
    guard let secured else { return nil }
    let pattern = entries[secured].pattern
    if let opening, !isWider, pattern.groupless.continues(opening.groupless, with: PathOctet.slash) {
      return nil
    }
    var isOpen = false
    prefixes.forEachCandidate(of: slashed) { number in
      guard !isOpen, number < secured, methods.contains(entries[number].method),
        !entries[number].route.endpoint.isSecured
      else { return }
      isOpen = takes(number, slashed, &matcher, &effort)
    }
    return isOpen ? nil : entries[secured].route
  }

  /// What was put in may have made a dot segment: `/books../x` with `/books(.*)` and `/v1/\1`.
  private static func check(rewritten: String) throws(PathDefect) {
    let path = rewritten.utf8.prefix { $0 != UInt8(ascii: "?") }
    var previous: UInt8 = 0
    let isOdd = path.contains { octet in
      defer { previous = octet }
      return PathOctet.isOddOctet(octet, behind: previous)
    }
    if isOdd, let defect = PathDefect(of: path), !defect.isOnlyBesideSecured { throw defect }
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
