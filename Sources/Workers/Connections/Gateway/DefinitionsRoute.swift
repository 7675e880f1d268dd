// GET /apis and /apis/:id on the inbound port, as RIG 1 had them (contract §9): for peers of INBOUND_APIS that speak for nobody
// else, and not for pages of foreign sites. For everybody else there is nothing here.

import HTTP
import Kit
import NIOCore
import NIOHTTP1
import Settings

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
    let fresh: HTTPHeaders = ["cache-control": "no-store"]
    if request.path == Self.list { return .json(apis.json, headers: fresh) }
    let segment = request.path.dropFirst(Self.list.count + 1)
    guard let id = PathSegment.decode(segment), let json = apis.json(of: id) else {
      return .problem(.notFound, "API with id=\(segment.prefix(256)) doesn't exists.")
    }
    return .json(json, headers: fresh)
  }
}
