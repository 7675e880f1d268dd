// Open endpoints that take paths of secured ones: whoever defines them is told, since often it is a mistake.
//
//   open first       the secured endpoint is never asked: its paths need no token
//   secured first    its paths need the token, in every reading that the gateway knows (PathReadings); a service with other ideas of a
//                    path would be reached by the open endpoint
//
// Whether one covers the other is decided by samples (PathPattern.samples): no covering is missed, and one that is named may have gaps.

public struct CoveredEndpoints: Sendable {
  /// Warnings about one change; the rest is counted.
  static let maximumListed = 20
  /// Pairs of patterns that are compared: enough for one change, and for a start with some thousand definitions.
  static let maximumPairs = (change: 200_000, start: 2_000_000)

  /// A sentence each.
  public private(set) var warnings: [String] = []
  private var count = 0
  private var pairs = 0
  private var isCut = false

  /// - Parameters:
  ///   - definitions: in order of creation. Those that take no requests don't count.
  ///   - id: only pairs with an endpoint of this definition; nil: all.
  public init(_ definitions: some Sequence<APIDefinition>, of id: String? = nil) {
    let routes = definitions.filter { $0.isActive && !$0.isVersioned }
      .flatMap { definition in definition.endpoints.map { APIRoute(definition, $0) } }.enumerated()
    let secured = routes.filter(\.element.endpoint.isSecured)
    let open = routes.filter { !$0.element.endpoint.isSecured }
    let mostPairs = id == nil ? Self.maximumPairs.start : Self.maximumPairs.change
    for (place, route) in secured {
      let isChanged = id.map { $0.utf8.elementsEqual(route.definition.id.utf8) } ?? true
      var samples: [(pattern: PathPattern, samples: [[UInt8]])]?
      for (openPlace, openRoute) in open
      where isChanged || id?.utf8.elementsEqual(openRoute.definition.id.utf8) == true {
        pairs += 1
        guard pairs <= mostPairs else {
          isCut = true
          finish()
          return
        }
        guard Self.sharesMethod(openRoute.endpoint, route.endpoint),
          Self.mayCover(openRoute.endpoint, route.endpoint)
        else { continue }
        let known = samples ?? route.endpoint.patterns.map { ($0, $0.samples) }
        samples = known
        guard Self.covers(openRoute.endpoint, known) else { continue }
        add(openRoute, route, isFirst: openPlace < place)
      }
    }
    finish()
  }

  private mutating func add(_ open: APIRoute, _ secured: APIRoute, isFirst: Bool) {
    count += 1
    guard count <= Self.maximumListed else { return }
    let covering = "open endpoint \(open.title) covers secured endpoint \(secured.title)"
    warnings.append(
      isFirst
        ? "\(covering) and comes first: no token is asked for"
        : "\(covering): only paths that are read as the secured one's need a token")
  }

  private mutating func finish() {
    if count > Self.maximumListed { warnings.append("and \(count - Self.maximumListed) more such endpoints") }
    if isCut { warnings.append("and perhaps more: there are too many endpoints to compare all of them") }
  }

  /// HEAD is taken by endpoints for GET too.
  private static func sharesMethod(_ a: APIEndpoint, _ b: APIEndpoint) -> Bool {
    a.method == b.method || Set([a.method, b.method]) == ["GET", "HEAD"]
  }

  /// What begins otherwise matches nothing of the other.
  private static func mayCover(_ open: APIEndpoint, _ secured: APIEndpoint) -> Bool {
    open.patterns.contains { open in
      secured.patterns.contains { zip(open.prefix, $0.prefix).allSatisfy(==) }
    }
  }

  private static func covers(
    _ open: APIEndpoint, _ secured: [(pattern: PathPattern, samples: [[UInt8]])]
  ) -> Bool {
    var matcher = PatternMatcher()
    return secured.contains { secured in
      !secured.samples.isEmpty
        && open.patterns.contains { pattern in
          secured.samples.allSatisfy { $0.withUnsafeBufferPointer { pattern.matches(folded: $0, &matcher) } }
        }
    }
  }
}

extension APIRoute {
  /// `books/get-book (GET /books/([^/]+))`, for people.
  fileprivate var title: String {
    let patterns = endpoint.patterns.map { String($0.source.prefix(100)) }.joined(separator: ", ")
    return "\(definition.id)/\(endpoint.id.prefix(100)) (\(endpoint.method) \(patterns))"
  }
}
