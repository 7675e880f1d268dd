// One API: which requests it takes, how they are authenticated, and which service answers them.
//
// The JSON that was put is kept as it came, members that nobody knows included, with RIG's defaults filled in: that is
// what GET returns and what lies in shared memory. What requests need is read from it once.

import Kit

/// A definition. Immutable: shared by tables, routers and requests.
public final class APIDefinition: Sendable, Equatable {
  /// The longest text of a definition; one endpoint takes some 300 bytes.
  public static let maximumBytes = 524_288
  public static let maximumEndpoints = 2_000
  /// The compiled size of all its patterns; one takes some 30.
  public static let maximumInstructions = 100_000
  /// An id is part of a path and of records.
  public static let maximumIDBytes = 256

  /// `auth`, with what JWT takes for granted.
  public struct Auth: Equatable, Sendable {
    public let isJWT: Bool
    public let useHeader: Bool
    public let headerName: String
    public let useQuery: Bool
    public let queryName: String
  }

  public let id: String
  public let name: String
  public let auth: Auth
  /// Not matched: versions aren't supported (nor are they by RIG 3).
  public let isVersioned: Bool
  public let isActive: Bool
  public let target: APITarget
  /// Headers to be set on requests to endpoints that transform them. Names and values are fit for HTTP.
  public let addHeaders: [(name: String, value: String)]
  /// Those of the version `default`.
  public let endpoints: [APIEndpoint]
  /// What of it will not do what its author may think, a sentence each.
  public let warnings: [String]
  /// Rises with every change.
  public let refNumber: Int64
  /// When and where it was changed.
  public let timestamp: String
  let document: JSONValue

  /// The definition as JSON: for GET, and as a record. Reading it gives an equal definition.
  public var json: [UInt8] {
    var json: [UInt8] = []
    document.appendJSON(to: &json)
    return json
  }

  /// Reads what `json` gave. The rules aren't checked again: what a PUT has merged may break some, as in RIG.
  public convenience init(stored bytes: UnsafeRawBufferPointer) throws(APIError) {
    self.init(validated: try APIValidation.parsed(bytes))
    guard !id.isEmpty else { throw .malformed("a definition without an id") }
  }

  /// The compiled size of all patterns.
  public var instructionCount: Int {
    endpoints.reduce(0) { $0 + $1.patterns.reduce(0) { $0 + $1.instructionCount } }
  }

  public static func == (a: APIDefinition, b: APIDefinition) -> Bool { a.document == b.document }

  /// Reads a document that has been validated. Never fails: what isn't as expected counts as absent.
  init(validated document: JSONValue) {
    self.document = document
    id = document.member("id")?.string ?? ""
    name = document.member("name")?.string ?? ""
    auth = Self.auth(document)
    isVersioned = document.member("versioned")?.boolean ?? false
    isActive = document.member("active")?.boolean ?? true
    target = APITarget(document.member("proxy"))
    refNumber = document.member("ref_number")?.integer ?? 0
    timestamp = document.member("timestamp")?.string ?? ""
    let version = document.member("version_data")?.member("default")
    addHeaders =
      version?.member("transform_request_headers")?.member("add_headers")?.members
      .compactMap { header in header.value.string.map { (header.name, $0) } } ?? []
    let isJWT = auth.isJWT
    let elements = version?.member("endpoints")?.elements?.prefix(Self.maximumEndpoints) ?? []
    endpoints = elements.map { APIEndpoint($0, isJWT: isJWT) }
    warnings = elements.flatMap { Self.warnings(about: $0, of: document) }
  }

  /// Whether its secured endpoints need a token.
  static func isJWT(_ document: JSONValue) -> Bool {
    document.member("auth_type")?.string?.lowercased() == "jwt"
  }

  private static func warnings(about endpoint: JSONValue, of document: JSONValue) -> [String] {
    var found: [String] = []
    if endpoint.member("schema") != nil {
      found.append("schema is not used: Avro isn't there yet, records are written as JSON")
    }
    let isJWT = isJWT(document)
    if isJWT, endpoint.text("path") != nil, endpoint.member("secured")?.boolean == false,
      endpoint.member("not_secured") == nil
    {
      found.append(
        "needs a token, although secured is false: with RIG 1's path it takes not_secured true to open it")
    }
    if !isJWT, endpoint.member("not_secured")?.boolean == false {
      found.append("is open to everybody, although not_secured is false: auth_type is none")
    }
    let place =
      "API \(document.member("id")?.string ?? ""), endpoint \(endpoint.member("id")?.string ?? ""): "
    return found.map { place + $0 }
  }

  private static func auth(_ document: JSONValue) -> Auth {
    let isJWT = isJWT(document)
    let auth = document.member("auth")
    let useHeader = auth?.member("use_header")?.boolean ?? isJWT
    return Auth(
      isJWT: isJWT, useHeader: useHeader,
      headerName: auth?.text("header_name") ?? (isJWT && useHeader ? "Authorization" : ""),
      useQuery: auth?.member("use_query")?.boolean ?? false, queryName: auth?.text("query_name") ?? "")
  }

  /// A new definition: RIG's defaults for what isn't said.
  static func created(_ body: JSONValue, refNumber: Int64, _ change: APIChange) -> APIDefinition {
    var document = body
    document.setDefault("active", .scalar(.bool(true)))
    document.setDefault("auth_type", .scalar(.string("none")))
    var auth = document.member("auth") ?? .object([])
    if isJWT(document) {
      // A header that is named stays: RIG 3 overwrites it, and then never looks at it.
      auth.set("use_header", .scalar(.bool(true)))
      if auth.text("header_name") == nil { auth.set("header_name", .scalar(.string("Authorization"))) }
    }
    auth.setDefault("use_header", .scalar(.bool(false)))
    auth.setDefault("header_name", .scalar(.string("")))
    auth.setDefault("use_query", .scalar(.bool(false)))
    auth.setDefault("query_name", .scalar(.string("")))
    document.set("auth", auth)
    document.setDefault("versioned", .scalar(.bool(false)))
    return stamped(document, refNumber: refNumber, change)
  }

  /// This definition with the members of `body` laid over it, each replaced whole. Its id stays.
  func merged(_ body: JSONValue, _ change: APIChange) -> APIDefinition {
    var document = document.overlaid(with: body)
    document.set("id", .scalar(.string(id)))
    let (next, overflow) = refNumber.addingReportingOverflow(1)
    return Self.stamped(document, refNumber: overflow ? 0 : next, change)
  }

  private static func stamped(
    _ document: JSONValue, refNumber: Int64, _ change: APIChange
  ) -> APIDefinition {
    var document = document
    document.set("ref_number", .scalar(.integer(refNumber)))
    document.set("timestamp", .scalar(.string(change.timestamp)))
    document.set("node_name", .scalar(.string(change.nodeName)))
    return APIDefinition(validated: document)
  }
}

/// When and where a change is made; comes in as a value so that tests choose it.
public struct APIChange: Equatable, Sendable {
  public let timestamp: String
  public let nodeName: String

  public init(timestamp: String, nodeName: String) {
    self.timestamp = timestamp
    self.nodeName = nodeName
  }
}
