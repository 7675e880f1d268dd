// The API definitions as this worker knows them, from the state ring, and the router made of them.

import APIs
import Kit
import Logging

/// Belongs to the worker's loop.
final class APIDirectory {
  /// By the bytes of the id: Swift finds texts equal that only look the same.
  private var definitions: [[UInt8]: (order: UInt64, definition: APIDefinition)] = [:]
  private(set) var router = APIRouter()
  private var isOutdated = false

  /// What the control worker has said of an API. False: it makes no sense.
  func define(id: String, order: UInt64, json: [UInt8]) -> Bool {
    guard let definition = json.withUnsafeBytes({ try? APIDefinition(stored: $0) }), definition.id == id
    else {
      return false
    }
    definitions[Array(id.utf8)] = (order, definition)
    isOutdated = true
    return true
  }

  func remove(id: String) {
    if definitions.removeValue(forKey: Array(id.utf8)) != nil { isOutdated = true }
  }

  func removeAll() {
    definitions = [:]
    isOutdated = true
  }

  /// Makes the router anew if something has changed since. Once for many changes.
  func refresh() {
    guard isOutdated else { return }
    isOutdated = false
    router = APIRouter(ordered)
  }

  private var ordered: [APIDefinition] {
    definitions.values.sorted { $0.order < $1.order }.map(\.definition)
  }

  /// The active definitions as a JSON list, in order of creation.
  var json: [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(ordered.filter(\.isActive), to: &json) { $1.append(contentsOf: $0.json) }
    return json
  }

  /// One definition as JSON; nil: there is none, or it isn't active.
  func json(of id: String) -> [UInt8]? {
    definitions[Array(id.utf8)].flatMap { $0.definition.isActive ? $0.definition.json : nil }
  }
}
