// Which endpoint takes a request: the first that matches of the first definition in order of creation.
//
// Paths are compared as they came, never decoded, and handed on as they came: `%2F`, `..` and `//` are the service's own
// business. What is handed on always begins with '/', so behind the service's origin it stays with that service.

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
}

public enum APIRouting: Sendable {
  case match(APIMatch)
  case notFound
  /// The path is known, but with these methods (sorted; never empty).
  case otherMethods([String])
}

/// All active definitions, compiled. Immutable, to be shared by threads.
public struct APIRouter: Sendable {
  /// What one look-up took, for tests and benchmarks.
  struct Effort: Equatable {
    var patterns = 0
    var steps = 0
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
        for index in bytes.indices {
          folded.initializeElement(at: index, to: PathFolding.folded(bytes[index]))
        }
        return match(
          method: method, path: bytes, folded: UnsafeBufferPointer(rebasing: folded[..<bytes.count]), &effort)
      }
    }
  }

  private func match(
    method: String, path: UnsafeBufferPointer<UInt8>, folded: UnsafeBufferPointer<UInt8>,
    _ effort: inout Effort
  ) -> APIRouting {
    let own = methodNumbers[method] ?? -1
    let related = method == Self.head ? methodNumbers[Self.get] ?? -1 : -1
    var candidates: [Int] = []
    var others: [Int] = []
    prefixes.forEachCandidate(of: folded) { number in
      let wanted = entries[number].method
      if wanted == own || wanted == related { candidates.append(number) } else { others.append(number) }
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
      return .match(APIMatch(route: entry.route, path: rewritten))
    }
    let allowed = allowedMethods(others, folded, &matcher, &effort)
    return allowed.isEmpty ? .notFound : .otherMethods(allowed)
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
