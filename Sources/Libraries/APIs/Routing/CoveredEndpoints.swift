// Open endpoints that take paths of secured ones: whoever defines them is told, since often it is a mistake.
//
//   open first       the secured endpoint is never asked: its paths need no token
//   secured first    its paths need the token, in every reading that the gateway knows (PathReadings); a service with other ideas of a
//                    path would be reached by the open endpoint
//
// Whether one covers the other is decided by samples (PathPattern.samples): no covering is missed, and one that is named may have gaps.
//
// The control worker looks in one turn of its loop, so what a look may take is bounded, matching included: it says if it was cut short.

public struct CoveredEndpoints: Sendable {
  /// Warnings about one change; the rest is counted.
  static let maximumListed = 20
  /// Endpoints and octets that are looked at, and steps of matchers: 20 to 60 ms of a release build for all looks of one turn.
  public static let maximumEffort = (change: 500_000, start: 2_000_000)

  /// A sentence each.
  public private(set) var warnings: [String] = []
  private var count = 0
  /// Endpoints and octets that were looked at, and steps that matchers took.
  public private(set) var effort = 0
  private var isCut = false

  fileprivate struct Entry {
    let place: Int
    let definition: APIDefinition
    let endpoint: APIEndpoint
    let isChanged: Bool
  }

  /// - Parameters:
  ///   - definitions: in order of creation. Those that take no requests don't count.
  ///   - id: only pairs with an endpoint of this definition; nil: all.
  ///   - limit: of the effort; nil: `maximumEffort`.
  public init(_ definitions: some Sequence<APIDefinition>, of id: String? = nil, limit: Int? = nil) {
    let limit = limit ?? (id == nil ? Self.maximumEffort.start : Self.maximumEffort.change)
    var open: [Entry] = []
    var secured: [Entry] = []
    for definition in definitions where definition.isActive && !definition.isVersioned {
      let isChanged = id.map { $0.utf8.elementsEqual(definition.id.utf8) } ?? true
      effort += definition.endpoints.count
      for endpoint in definition.endpoints {
        let entry = Entry(
          place: open.count + secured.count, definition: definition, endpoint: endpoint, isChanged: isChanged)
        if endpoint.isSecured { secured.append(entry) } else { open.append(entry) }
      }
    }
    let changed = open.filter(\.isChanged)
    for secured in secured {
      guard compare(secured, with: secured.isChanged ? open : changed, limit) else {
        isCut = true
        break
      }
    }
    finish()
  }

  /// False: it would take more than `limit`.
  private mutating func compare(_ secured: Entry, with open: [Entry], _ limit: Int) -> Bool {
    let endpoint = secured.endpoint
    var samples: [[[UInt8]]]?
    for open in open {
      let other = open.endpoint
      effort += 1
      guard effort <= limit else { return false }
      guard Self.sharesMethod(other, endpoint), mayCover(other, endpoint, limit) else { continue }
      var matcher = PatternMatcher()
      defer { effort += matcher.steps }
      if samples == nil {
        var known: [[[UInt8]]] = []
        for pattern in endpoint.patterns {
          guard let found = pattern.samples(steps: limit - effort, &matcher) else { return false }
          known.append(found)
        }
        samples = known
      }
      guard let isCovered = Self.covers(other, samples ?? [], steps: limit - effort, &matcher) else {
        return false
      }
      if isCovered { add(open, secured) }
    }
    return true
  }

  private mutating func add(_ open: Entry, _ secured: Entry) {
    count += 1
    guard count <= Self.maximumListed else { return }
    let isFirst = open.place < secured.place
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
    a.method == b.method || (a.method == "GET" && b.method == "HEAD")
      || (a.method == "HEAD" && b.method == "GET")
  }

  /// What begins otherwise matches nothing of the other.
  private mutating func mayCover(_ open: APIEndpoint, _ secured: APIEndpoint, _ limit: Int) -> Bool {
    for open in open.patterns {
      for secured in secured.patterns where effort <= limit {
        let shorter = min(open.prefix.count, secured.prefix.count)
        var alike = 0
        while alike < shorter, open.prefix[alike] == secured.prefix[alike] { alike += 1 }
        effort += alike + 1
        if alike == shorter { return true }
      }
    }
    return false
  }

  /// nil: the matcher could take more than `steps`.
  private static func covers(
    _ open: APIEndpoint, _ secured: [[[UInt8]]], steps: Int, _ matcher: inout PatternMatcher
  ) -> Bool? {
    for samples in secured where !samples.isEmpty {
      for pattern in open.patterns {
        var isCovered = true
        for sample in samples where isCovered {
          guard matcher.steps + pattern.steps(over: sample) <= steps else { return nil }
          isCovered = sample.withUnsafeBufferPointer { pattern.matches(folded: $0, &matcher) }
        }
        if isCovered { return true }
      }
    }
    return false
  }
}

extension CoveredEndpoints.Entry {
  /// `books/get-book (GET /books/([^/]+))`, for people.
  fileprivate var title: String {
    let patterns = endpoint.patterns.map { String($0.source.prefix(100)) }.joined(separator: ", ")
    return "\(definition.id)/\(endpoint.id.prefix(100)) (\(endpoint.method) \(patterns))"
  }
}
