// The definitions of the gateway in order of creation, and the changes that the management API makes. A definition that
// is changed keeps its place; one that is removed and created again goes to the end.
//
// The control worker decides (`create`, `replace`, `remove`); workers that only follow `put` what they are told.

import Kit

/// All definitions by id. A value: copies share what they hold.
public struct APITable: Sendable {
  public static let maximumDefinitions = 20_000
  /// The compiled size of all patterns, some 10 bytes each.
  public static let maximumInstructions = 4_000_000

  /// Removed ones leave a hole until half of the places are holes.
  private var places: [APIDefinition?] = []
  /// Ids are compared byte for byte: Swift's own strings are also equal if they look the same.
  private var placeOfID: [[UInt8]: Int] = [:]
  private var instructionCount = 0
  private let maximumInstructions: Int

  public init() {
    self.init(maximumInstructions: Self.maximumInstructions)
  }

  init(maximumInstructions: Int) {
    self.maximumInstructions = maximumInstructions
  }

  public var count: Int { placeOfID.count }

  /// All definitions, inactive ones too, in order of creation.
  public var all: some Sequence<APIDefinition> { places.lazy.compactMap { $0 } }

  /// The active definition of that id. RIG shows no others.
  public func definition(_ id: String) -> APIDefinition? {
    stored(id).flatMap { $0.isActive ? $0 : nil }
  }

  /// The active definitions as a JSON list: `GET /v3/apis`.
  public var json: [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(all.filter(\.isActive), to: &json) { $0.document.appendJSON(to: &$1) }
    return json
  }

  /// The router for the definitions as they are now. Sorts all prefixes: to be made once for many changes.
  public func router() -> APIRouter { APIRouter(all) }

  // MARK: Changes

  /// `POST`: a new definition with RIG's defaults. An inactive one of that id is replaced.
  @discardableResult
  public mutating func create(
    _ body: UnsafeRawBufferPointer, _ change: APIChange
  ) throws(APIError) -> APIDefinition {
    try create(try APIValidation.document(body, id: nil), change)
  }

  /// `PUT`: the body must be a whole definition; its members replace those of the stored one, the others stay.
  @discardableResult
  public mutating func replace(
    id: String, _ body: UnsafeRawBufferPointer, _ change: APIChange
  ) throws(APIError) -> APIDefinition {
    // RIG looks at the body first: a bad one for an unknown id is 400.
    let document = try APIValidation.document(body, id: id)
    guard let old = definition(id) else { throw .unknown(id: id) }
    let definition = old.merged(document, change)
    try put(definition)
    return definition
  }

  @discardableResult
  public mutating func remove(id: String) throws(APIError) -> APIDefinition {
    guard let definition = definition(id) else { throw .unknown(id: id) }
    drop(id: id)
    return definition
  }

  /// Stores a definition that was decided on elsewhere: in the place of the one with its id, else at the end.
  public mutating func put(_ definition: APIDefinition) throws(APIError) {
    let old = stored(definition.id)
    let instructions = instructionCount - (old?.instructionCount ?? 0) + definition.instructionCount
    guard old != nil || count < Self.maximumDefinitions else {
      throw .full("there are \(Self.maximumDefinitions) definitions already")
    }
    guard instructions <= maximumInstructions else {
      throw .full("the patterns of all definitions take more than \(maximumInstructions) steps")
    }
    // Defaults, and members that PUT after PUT leaves, make it longer than what came.
    guard definition.json.count <= APIDefinition.maximumBytes else {
      throw .malformed("a definition that would have more than \(APIDefinition.maximumBytes) bytes")
    }
    instructionCount = instructions
    let key = Array(definition.id.utf8)
    if let place = placeOfID[key] {
      places[place] = definition
    } else {
      placeOfID[key] = places.count
      places.append(definition)
    }
  }

  /// Forgets a definition that was removed elsewhere; false if there is none.
  @discardableResult
  public mutating func drop(id: String) -> Bool {
    guard let place = placeOfID.removeValue(forKey: Array(id.utf8)), let old = places[place] else {
      return false
    }
    instructionCount -= old.instructionCount
    places[place] = nil
    if places.count > 2 * count { closeHoles() }
    return true
  }

  // MARK: Inside

  mutating func create(_ document: JSONValue, _ change: APIChange) throws(APIError) -> APIDefinition {
    let id = document.member("id")?.string ?? ""
    let old = stored(id)
    guard old?.isActive != true else { throw .exists(id: id) }
    let refNumber = old.map { $0.refNumber &+ 1 } ?? 0
    let definition = APIDefinition.created(document, refNumber: refNumber, change)
    // What is created last comes last, also if its id is an old one.
    if old != nil { drop(id: id) }
    try put(definition)
    return definition
  }

  /// The definition of that id, also an inactive one.
  public func stored(_ id: String) -> APIDefinition? {
    placeOfID[Array(id.utf8)].flatMap { places[$0] }
  }

  private mutating func closeHoles() {
    places = places.filter { $0 != nil }
    for (place, definition) in places.enumerated() {
      if let definition { placeOfID[Array(definition.id.utf8)] = place }
    }
  }

  public static let maximumFileBytes = 64 * 1_048_576

  public init(list bytes: UnsafeRawBufferPointer, _ change: APIChange) throws(APIFileError) {
    self.init()
    guard bytes.count <= Self.maximumFileBytes else {
      throw APIFileError(["a list of definitions of more than \(Self.maximumFileBytes) bytes"])
    }
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue(parsing: bytes)
    } catch {
      throw APIFileError(["a list of definitions that is no JSON: \(error)"])
    }
    guard let elements = document.elements else {
      throw APIFileError(["\(document.kindName), expected a list of definitions"])
    }
    var lines: [String] = []
    for (index, element) in elements.enumerated() {
      let id = element.member("id")?.string.map { " (\($0.prefix(64)))" } ?? ""
      do throws(APIError) {
        let problems = APIValidation.problems(of: element)
        guard problems.isEmpty else { throw .invalid(problems) }
        _ = try create(Self.withUpperCaseMethods(element), change)
      } catch {
        lines.append("definition \(index + 1)\(id): \(error.message)")
      }
    }
    guard lines.isEmpty else { throw APIFileError(lines) }
  }

  /// RIG writes the methods of its file in upper case.
  private static func withUpperCaseMethods(_ definition: JSONValue) -> JSONValue {
    guard let versions = definition.member("version_data")?.members else { return definition }
    let upperVersions = versions.map { name, value in
      guard let endpoints = value.member("endpoints")?.elements else { return (name: name, value: value) }
      var value = value
      value.set("endpoints", .array(endpoints.map(withUpperCaseMethod)))
      return (name: name, value: value)
    }
    var definition = definition
    definition.set("version_data", .object(upperVersions))
    return definition
  }

  private static func withUpperCaseMethod(_ endpoint: JSONValue) -> JSONValue {
    guard let method = endpoint.text("method") else { return endpoint }
    var endpoint = endpoint
    endpoint.set("method", .scalar(.string(method.uppercased())))
    return endpoint
  }
}

/// What is wrong with the file, a line each.
public struct APIFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// More mistakes than anybody reads at once.
  static let maximumLines = 100

  public let lines: [String]

  init(_ lines: [String]) {
    let rest = lines.count - Self.maximumLines
    self.lines = lines.prefix(Self.maximumLines) + (rest > 0 ? ["and \(rest) more"] : [])
  }

  public var description: String { lines.joined(separator: "\n") }
}
