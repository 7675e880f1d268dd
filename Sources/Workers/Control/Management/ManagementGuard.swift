// Who may use the management port. Health and metrics are for everybody; for the rest:
//
//   MANAGEMENT_TOKEN    whoever shows it as a bearer token (RFC 6750); one right token among several is enough, else 401
//   an address chosen   whoever reaches it (API_BIND_ADDRESS, BIND_ADDRESS)
//   neither             peers on this machine that speak for themselves (no forwarding field), else 403
//
// Without a token nothing tells an operator from a web page that the operator's browser has open: then `Host` must be one that
// no foreign site can have (OwnHosts), and `Origin`, which every browser sends with what changes something, the port's own; else 403.
//
// The comparison takes as long for a token that is nearly right as for one that is wholly wrong. No message names a token.

import HTTP
import Kit
import NIOHTTP1
import Settings
import Tokens

struct ManagementGuard {
  /// What a request lacks; the value of the label `reason`.
  enum Reason: String, CaseIterable {
    case token, peer, host, origin
  }

  struct Refusal {
    let reason: Reason
    let response: HTTPResponse
  }

  /// Bytes of a field that are repeated in an answer.
  private static let mostShown = 200

  private let token: [UInt8]?
  private let isForThisMachine: Bool
  private let hosts: OwnHosts

  init(_ settings: Settings) {
    token = settings.managementToken.map { Array($0.revealed.utf8) }
    isForThisMachine = settings.isManagementForThisMachine
    hosts = OwnHosts(settings.apiHosts)
  }

  /// Why a request may not be carried out, and its answer; nil: it may.
  func refusal(of request: HTTPRequest) -> Refusal? {
    if let token { return Self.refusal(of: request.headers["authorization"], token) }
    if isForThisMachine, let detail = Self.strangeness(of: request) { return Self.forbidden(.peer, detail) }
    let authority = request.authority
    guard let authority, hosts.contains(authority: authority) else {
      return Self.forbidden(
        .host,
        "header host: \(authority.map(Self.shown) ?? "there is none"); expected an address, a name without a dot, or one of "
          + "API_HOSTS, as long as there is no MANAGEMENT_TOKEN")
    }
    for origin in request.headers["origin"] where !hosts.isOwn(origin: origin, at: authority) {
      return Self.forbidden(
        .origin,
        "header origin: \(Self.shown(origin)) is another site; expected this port's own, or one of API_HOSTS, as long as there "
          + "is no MANAGEMENT_TOKEN")
    }
    return nil
  }

  /// Why a request isn't from this machine; nil: it is.
  private static func strangeness(of request: HTTPRequest) -> String? {
    let advice =
      "; for others set MANAGEMENT_TOKEN, or API_BIND_ADDRESS (or BIND_ADDRESS) to the address to serve them at"
    guard NetworkSet.loopback.contains(request.peer.text) else {
      return "this port serves peers on its own machine, and to others health and metrics only" + advice
    }
    return request.headers.first { HeaderFields.isForwarding($0.name) }.map {
      "header \($0.name.prefix(mostShown)): the request comes from elsewhere, and this port serves its own machine"
        + advice
    }
  }

  private static func shown(_ value: String) -> String { "'\(value.prefix(mostShown))'" }

  private static func forbidden(_ reason: Reason, _ detail: String) -> Refusal {
    Refusal(reason: reason, response: .problem(.forbidden, detail))
  }

  // MARK: Token

  private static func refusal(of fields: [String], _ token: [UInt8]) -> Refusal? {
    let given: [String]
    do throws(TokenError) {
      given = try BearerTokens.parse(fields)
    } catch {
      return unauthorized("header authorization: \(error)", #"Bearer error="invalid_request""#)
    }
    guard !given.isEmpty else {
      return unauthorized("header authorization has no bearer token, expected MANAGEMENT_TOKEN", "Bearer")
    }
    // Every one is compared, wherever the right one stands.
    var isRight = false
    for candidate in given where areEqual(Array(candidate.utf8), token) { isRight = true }
    guard !isRight else { return nil }
    return unauthorized(
      "header authorization: the token is not MANAGEMENT_TOKEN", #"Bearer error="invalid_token""#)
  }

  private static func unauthorized(_ detail: String, _ challenge: String) -> Refusal {
    Refusal(
      reason: .token, response: .problem(.unauthorized, detail, headers: ["www-authenticate": challenge]))
  }

  /// Time depends on the length of `given` alone, which its sender knows.
  private static func areEqual(_ given: [UInt8], _ token: [UInt8]) -> Bool {
    var difference = given.count ^ token.count
    for index in given.indices { difference |= Int(given[index] ^ token[index % token.count]) }
    return difference == 0
  }
}
