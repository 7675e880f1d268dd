// RIG 1's paths about sessions on the inbound port (contract §7). Whether the client may is judged here; what is known of sessions, of
// all workers, is the control worker's to say, and so is ending one.
//
// They demand a token of their own whatever MANAGEMENT_TOKEN says: that is for the management port, and opens nothing here.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1
import Tokens

final class LegacyRoute {
  private static let place = "header authorization"

  private let access: Access
  private let publications: PublicationClient?
  private let clock: LoopClock

  /// - Parameter publications: asks the control worker; nil: there is no way to it.
  init(_ access: Access, asking publications: PublicationClient?, _ clock: LoopClock) {
    self.access = access
    self.publications = publications
    self.clock = clock
  }

  func respond(_ request: HTTPRequest, _ resource: LegacyResource, on loop: EventLoop) -> Reply {
    clock.refresh()
    do throws(RefusedRequest) {
      return ask(try question(request, resource), on: loop)
    } catch {
      return access.refusal(error, on: loop) { [self] in respond(request, resource, on: loop) }
    }
  }

  /// - Throws: 401 without a valid token, or if one of several isn't; 403 if none allows it.
  private func question(
    _ request: HTTPRequest, _ resource: LegacyResource
  ) throws(RefusedRequest) -> SessionQuestion {
    let tokens: [String]
    do throws(TokenError) {
      tokens = try BearerTokens.parse(request.headers["authorization"], takesBare: true)
    } catch {
      throw RefusedRequest(status: 401, detail: "\(Self.place): \(error)")
    }
    guard !tokens.isEmpty else {
      throw RefusedRequest(status: 401, detail: "\(Self.place) has no bearer token")
    }
    let named = tokens.map { (place: Self.place, token: $0) }
    let authorization = try access.verify(named)
    guard let token = authorization.tokens.first(where: { $0.allows(action: resource.action) }) else {
      throw RefusedRequest(status: 403, detail: resource.refusal)
    }
    do throws(EventError) {
      return try resource.question(validUntil: token.validUntil)
    } catch {
      throw RefusedRequest(status: error.status, detail: error.detail)
    }
  }

  private func ask(_ question: SessionQuestion, on loop: EventLoop) -> Reply {
    let unanswered = RefusedRequest(status: 503, detail: "the control worker doesn't answer now")
    guard let publications else { return .response(unanswered.response) }
    return Deferred.reply(on: loop) { [clock] complete in
      publications.ask(question, nowNs: clock.nowNs) { answer in
        complete(.response(answer.map { HTTPResponse($0) } ?? unanswered.response))
      }
      return nil
    }
  }
}
