// The API definitions as this worker knows them, from the state ring, and the router made of them; and who may read them.

import APIs
import HTTP
import Kit
import Logging
import NIOCore
import NIOHTTP1
import Settings

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

/// GET /apis and /apis/:id on the inbound port, as RIG 1 had them (contract §9): for peers of INBOUND_APIS that speak for nobody
/// else, and not for pages of foreign sites. For everybody else there is nothing here.
final class DefinitionsRoute {
  private static let list = "/apis"

  private let apis: APIDirectory
  private let readers: NetworkSet
  private let hosts: OwnHosts

  init(_ apis: APIDirectory, _ settings: Settings) {
    self.apis = apis
    // Who closes the management port doesn't want its content here.
    readers = NetworkSet(settings.managementToken == nil ? settings.inboundAPINetworks : [])
    hosts = OwnHosts(settings.apiHosts)
  }

  /// Whether the request is for the definitions rather than for an API.
  func takes(_ request: HTTPRequest) -> Bool {
    guard !readers.isEmpty, request.path == Self.list || request.path.hasPrefix(Self.list + "/"),
      readers.contains(request.peer.text),
      !request.headers.contains(where: { HeaderFields.isForwarding($0.name) })
    else { return false }
    return request.authority.map { hosts.contains(authority: $0) } ?? false
  }

  func respond(_ request: HTTPRequest) -> HTTPResponse {
    guard request.method == .GET || request.method == .HEAD else {
      return .methodNotAllowed(request.method, allowed: [.GET, .HEAD])
    }
    let fresh: HTTPFields = ["cache-control": "no-store"]
    if request.path == Self.list { return .json(apis.json, headers: fresh) }
    let segment = request.path.dropFirst(Self.list.count + 1)
    guard let id = PathSegment.decode(segment), let json = apis.json(of: id) else {
      return .problem(.notFound, "API with id=\(segment.prefix(256)) doesn't exists.")
    }
    return .json(json, headers: fresh)
  }
}
