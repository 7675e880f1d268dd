// RIG's rules for definitions, all mistakes at once, with RIG's texts; and ours: what could never be matched, compiled or
// sent is named here, not found out when a request comes.

import Kit

struct APIValidation {
  private static let mustBePresent = "must be present"
  private static let mustBeString = "must be string"
  private static let mustBeBoolean = "must be boolean"
  static let mustBeObject = "must be object"
  private static let mustBeList = "must be list"
  private static let mustNotBeEmpty = "must have a length of at least 1"
  private static let top = "api"

  private(set) var problems = APIProblems()
  private let id: String
  private var instructionCount = 0

  /// The definition in `bytes`, if nothing is wrong with it.
  /// - Parameter id: that of the path for PUT, which counts whatever the body says.
  static func document(_ bytes: UnsafeRawBufferPointer, id: String?) throws(APIError) -> JSONValue {
    var document = try parsed(bytes)
    if let id, document.isObject { document.set("id", .scalar(.string(id))) }
    let problems = problems(of: document)
    guard problems.isEmpty else { throw .invalid(problems) }
    return document
  }

  static func parsed(_ bytes: UnsafeRawBufferPointer) throws(APIError) -> JSONValue {
    guard bytes.count <= APIDefinition.maximumBytes else {
      throw .malformed("a definition of more than \(APIDefinition.maximumBytes) bytes")
    }
    do throws(JSONError) {
      return try JSONValue(parsing: bytes)
    } catch {
      throw .malformed("a definition that is no JSON: \(error)")
    }
  }

  static func problems(of document: JSONValue) -> APIProblems {
    guard document.isObject else {
      var problems = APIProblems()
      problems.add(top, "body", mustBeObject)
      return problems
    }
    var validation = APIValidation(document)
    validation.checkTop(document)
    validation.checkProxy(document.member("proxy"))
    validation.checkVersions(document)
    validation.checkAuth(document)
    validation.checkEndpoints(document)
    return validation.problems
  }

  private init(_ document: JSONValue) {
    id = document.member("id")?.string ?? ""
  }

  // MARK: The top

  private mutating func checkTop(_ document: JSONValue) {
    requireText("id", of: document, in: Self.top)
    if id.utf8.count > APIDefinition.maximumIDBytes {
      problems.add(Self.top, "id", "must have at most \(APIDefinition.maximumIDBytes) bytes")
    }
    requireText("name", of: document, in: Self.top)
    if let type = document.member("auth_type") {
      if type.string == nil {
        problems.add(Self.top, "auth_type", Self.mustBeString)
      } else if type == .scalar(.string("")) {
        problems.add(Self.top, "auth_type", Self.mustNotBeEmpty)
      } else {
        requireOne(of: ["none", "jwt"], "auth_type", of: document, in: Self.top)
      }
    }
    requireBoolean("versioned", of: document, in: Self.top)
    if document.member("versioned")?.boolean == true {
      problems.add(Self.top, "versioned", "must be false: an API with versions would take no requests")
    }
    requireBoolean("active", of: document, in: Self.top)
  }

  private mutating func checkProxy(_ proxy: JSONValue?) {
    guard let proxy, proxy != .array([]), proxy != .scalar(.string("")) else {
      return problems.add(Self.top, "proxy", Self.mustBePresent)
    }
    // RIG names what an empty one lacks as well.
    if proxy == .object([]) { problems.add(Self.top, "proxy", Self.mustBePresent) }
    guard proxy.isObject else { return problems.add(Self.top, "proxy", Self.mustBeObject) }
    requireText("target_url", of: proxy, in: Self.top)
    requireBoolean("use_env", of: proxy, in: Self.top)
    guard let port = proxy.member("port")?.integer else {
      return problems.add(Self.top, "port", "must be integer")
    }
    guard (1...65_535).contains(port) else {
      return problems.add(Self.top, "port", "must be between 1 and 65535")
    }
    if let url = proxy.text("target_url"), proxy.member("use_env")?.boolean != true,
      APITarget.origin(of: url, port: Int(port)) == nil
    {
      problems.add(Self.top, "target_url", "must be a host or an http or https URL")
    }
  }

  private mutating func checkVersions(_ document: JSONValue) {
    guard let versions = document.member("version_data") else {
      return problems.add(Self.top, "version_data", Self.mustBePresent)
    }
    guard versions.isObject else { return problems.add(Self.top, "version_data", Self.mustBeObject) }
    guard !versions.members.isEmpty else {
      problems.add(Self.top, "version_data", Self.mustBePresent)
      return problems.add(Self.top, "version_data", "must have at least one version, e.g. default")
    }
    for version in versions.members {
      if version.value.member("endpoints")?.elements == nil {
        problems.add(Self.top, "endpoints", Self.mustBeList)
      }
      checkAddedHeaders(version.value.member("transform_request_headers"))
    }
  }

  private mutating func checkAddedHeaders(_ transformation: JSONValue?) {
    guard let transformation else { return }
    guard transformation.isObject else {
      return problems.add(Self.top, "transform_request_headers", Self.mustBeObject)
    }
    guard let headers = transformation.member("add_headers") else { return }
    guard headers.isObject else { return problems.add(Self.top, "add_headers", Self.mustBeObject) }
    for header in headers.members {
      let name = String(header.name.prefix(64))
      if !HTTPOctets.isToken(header.name.utf8) {
        problems.add(Self.top, "add_headers", "must have names of headers, '\(name)' is none")
      } else if let value = header.value.string {
        guard !HTTPOctets.isFieldValue(value.utf8) else { continue }
        problems.add(
          Self.top, "add_headers", "must have values without control characters, '\(name)' has one")
      } else {
        problems.add(Self.top, "add_headers", "must have strings as values, '\(name)' has another")
      }
    }
  }

  // MARK: Authentication

  private mutating func checkAuth(_ document: JSONValue) {
    guard let auth = document.member("auth") else { return }
    guard auth.isObject else { return problems.add(id, "auth", Self.mustBeObject) }
    requireBoolean("use_header", of: auth, in: id)
    requireBoolean("use_query", of: auth, in: id)
    for name in ["header_name", "query_name"] {
      requireKind(name, of: auth, in: id, Self.mustBeString) { $0.string != nil }
    }
    let usesHeader = auth.member("use_header")?.boolean == true
    let usesQuery = auth.member("use_query")?.boolean == true
    if usesHeader, isBlank(auth.member("header_name")) {
      problems.add(id, "header_name", Self.mustBePresent)
    } else if let name = auth.text("header_name"), !HTTPOctets.isToken(name.utf8) {
      problems.add(id, "header_name", "must be the name of a header")
    }
    if usesQuery, isBlank(auth.member("query_name")) { problems.add(id, "query_name", Self.mustBePresent) }
    if usesHeader || usesQuery { requireJWT(document, in: id) }
  }

  private mutating func requireJWT(_ document: JSONValue, in scope: String) {
    guard !APIDefinition.isJWT(document) else { return }
    problems.add(scope, "auth_type", #"must be one of ["jwt"]"#)
  }

  // MARK: Endpoints

  private mutating func checkEndpoints(_ document: JSONValue) {
    // As in RIG only those of the version `default` are looked at: others are never matched.
    guard let endpoints = document.member("version_data")?.member("default")?.member("endpoints")?.elements
    else { return }
    guard endpoints.count <= APIDefinition.maximumEndpoints else {
      return problems.add(
        Self.top, "endpoints", "must have at most \(APIDefinition.maximumEndpoints) elements")
    }
    for endpoint in endpoints { checkEndpoint(endpoint, document) }
    if instructionCount > APIDefinition.maximumInstructions {
      problems.add(
        Self.top, "endpoints",
        "must have patterns that are smaller: \(instructionCount) steps, at most"
          + " \(APIDefinition.maximumInstructions)")
    }
  }

  private mutating func checkEndpoint(_ endpoint: JSONValue, _ document: JSONValue) {
    let scope = "\(id)/\(endpoint.member("id")?.string ?? "")"
    guard endpoint.isObject else { return problems.add(scope, "endpoint", Self.mustBeObject) }
    requireText("id", of: endpoint, in: scope)
    checkPatterns(of: endpoint, in: scope)
    requireText("method", of: endpoint, in: scope)
    if let method = endpoint.text("method"), !HTTPOctets.isToken(method.utf8) {
      problems.add(scope, "method", "must be an HTTP method")
    }
    for name in ["secured", "not_secured", "transform_request_headers", "forward_credentials"] {
      requireBoolean(name, of: endpoint, in: scope)
    }
    if endpoint.member("secured")?.boolean == true {
      requireJWT(document, in: scope)
      if endpoint.member("not_secured")?.boolean == true {
        problems.add(scope, "not_secured", "must not be true where secured is true")
      }
    }
    checkTarget(of: endpoint, in: scope)
  }

  private mutating func checkPatterns(of endpoint: JSONValue, in scope: String) {
    let path = endpoint.member("path")
    requireKind("path", of: endpoint, in: scope, Self.mustBeString) { $0.string != nil }
    // RIG 1 had `path` alone.
    if isBlank(path) || endpoint.member("path_regex") != nil {
      requireText("path_regex", of: endpoint, in: scope)
    }
    // Compiling stops when the whole is too large anyway.
    guard instructionCount <= APIDefinition.maximumInstructions else { return }
    do throws(PatternError) {
      if let path = path?.string { instructionCount += try PathPattern(wildcards: path).instructionCount }
    } catch {
      problems.add(scope, "path", "must be a pattern that is supported: \(error)")
    }
    do throws(PatternError) {
      if let regex = endpoint.text("path_regex") {
        instructionCount += try PathPattern(regex).instructionCount
      }
    } catch {
      problems.add(scope, "path_regex", "must be a pattern that is supported: \(error)")
    }
    requireKind("path_replacement", of: endpoint, in: scope, Self.mustBeString) { $0.string != nil }
    do throws(PatternError) {
      if let text = endpoint.text("path_replacement") { _ = try PathReplacement(text) }
    } catch {
      problems.add(scope, "path_replacement", "must be fit for a path: \(error)")
    }
  }

  private mutating func checkTarget(of endpoint: JSONValue, in scope: String) {
    requireOne(of: ["http", "kafka"], "target", of: endpoint, in: scope)
    requireOne(of: ["http", "kafka", "http_async"], "response_from", of: endpoint, in: scope)
    requireKind("topic", of: endpoint, in: scope, Self.mustBeString) { $0.string != nil }
    let target = endpoint.text("target")?.lowercased()
    if target == "kafka", isBlank(endpoint.member("topic")) {
      problems.add(scope, "topic", Self.mustBePresent)
    } else if target == "kafka", let topic = endpoint.text("topic"), !Self.isTopic(topic) {
      problems.add(scope, "topic", "must be a topic name: at most 249 letters, digits, '.', '_' or '-'")
    }
    if endpoint.member("schema") != nil, target == nil { problems.add(scope, "target", Self.mustBePresent) }
  }

  /// Kafka's own rule.
  private static func isTopic(_ text: String) -> Bool {
    text.utf8.count <= 249 && text != "." && text != ".."
      && text.utf8.allSatisfy { ByteSet.wordBytes.contains($0) || $0 == 0x2D || $0 == 0x2E }
  }

  // MARK: Single members

  private mutating func requireText(_ name: String, of object: JSONValue, in scope: String) {
    let value = object.member(name)
    if value?.string == nil { problems.add(scope, name, Self.mustBeString) }
    if value == nil || value?.string?.isEmpty == true { problems.add(scope, name, Self.mustNotBeEmpty) }
  }

  private mutating func requireBoolean(_ name: String, of object: JSONValue, in scope: String) {
    requireKind(name, of: object, in: scope, Self.mustBeBoolean) { $0.boolean != nil }
  }

  private mutating func requireKind(
    _ name: String, of object: JSONValue, in scope: String, _ reason: String, _ isKind: (JSONValue) -> Bool
  ) {
    if let value = object.member(name), !isKind(value) { problems.add(scope, name, reason) }
  }

  private mutating func requireOne(
    of texts: [String], _ name: String, of object: JSONValue, in scope: String
  ) {
    guard let value = object.member(name), value != .scalar(.string("")) else { return }
    if let text = value.string, texts.contains(text.lowercased()) { return }
    let list = texts.map { "\"\($0)\"" }.joined(separator: ", ")
    problems.add(scope, name, "must be one of [\(list)]")
  }

  /// Absent, or a text of white space.
  private func isBlank(_ value: JSONValue?) -> Bool {
    guard let value else { return true }
    return value.string?.allSatisfy(\.isWhitespace) ?? false
  }
}
