// GET …/longpolling: opens a session, or waits for its next events, wherever the session lives.
//
//   no valid token ───────────────► new session: "ok" and cookies
//   session of this worker ───────► its buffer: at once, or when an event comes
//   session of another worker ────► asked over a request ring ── gone, or no answer ──► new session, which goes on
//                                                                                       where the client left off

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class LongPollRoute {
  /// How much longer than the poll itself another worker's answer may take.
  private static let answerGraceSeconds = 2
  private static let busyRetrySeconds = 1
  /// A poll's wait is checked once per second: one second less keeps it within its bound.
  private static let tickSeconds = 1

  private let hub: Hub
  private let admission: Admission
  private let limits: LongPollSession.Limits

  init(hub: Hub, admission: Admission) {
    self.hub = hub
    self.admission = admission
    var limits = LongPollSession.Limits()
    limits.maximumEvents = hub.settings.longpollingMaxEvents
    limits.maximumBytes = hub.settings.longpollingMaxBytes
    limits.waitNs = Self.ns(max(0, hub.settings.longpollingWaitSeconds - Self.tickSeconds))
    limits.idleNs = Self.ns(hub.settings.longpollingTimeoutSeconds)
    self.limits = limits
  }

  func respond(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    hub.clock.refresh()
    let query = request.query
    let lastEventID =
      ConnectRequest.value("last_event_id", query) ?? Cookies.value("last_event_id", request.headers)
    let text =
      ConnectRequest.value("connection_token", query) ?? Cookies.value("connection_token", request.headers)
    guard let token = text.flatMap(hub.tokens.open) else { return .response(open(request, lastEventID)) }
    guard Int(token.slot) == hub.slot else { return ask(token, request, lastEventID, loop) }
    guard let connection = hub.longPolling(serial: token.serial) else {
      return .response(open(request, lastEventID))
    }
    return poll(connection, lastEventID, loop)
  }

  /// A poll of a session of this worker.
  private func poll(_ connection: LongPollConnection, _ lastEventID: String?, _ loop: EventLoop) -> Reply {
    var answered: HTTPResponse?
    var promise: EventLoopPromise<HTTPResponse>?
    let token = connection.token
    let id = connection.poll(lastEventID: lastEventID) { answer in
      let response = Self.response(answer.body, lastEventID: answer.lastEventID, token: token)
      if let promise { promise.succeed(response) } else { answered = response }
    }
    if let answered { return .response(answered) }
    let later = loop.makePromise(of: HTTPResponse.self)
    promise = later
    return .later(
      later.futureResult,
      onClientGone: {
        connection.cancel(poll: id)
        later.fail(ClientGone())
      })
  }

  /// A poll of a session of another worker.
  private func ask(
    _ token: ConnectionToken, _ request: HTTPRequest, _ lastEventID: String?, _ loop: EventLoop
  ) -> Reply {
    let promise = loop.makePromise(of: HTTPResponse.self)
    let waitSeconds = hub.settings.longpollingWaitSeconds + Self.answerGraceSeconds
    let sealed = try? hub.tokens.seal(token)
    let asked = hub.exchange.ask(
      token.slot, .poll(serial: token.serial, lastEventID: lastEventID),
      deadlineNs: hub.clock.nowNs + Self.ns(waitSeconds)
    ) { [self] answer in
      guard let answer, answer.status == 200 else { return promise.succeed(open(request, lastEventID)) }
      promise.succeed(Self.response(answer.body, lastEventID: answer.text, token: sealed))
    }
    switch asked {
    case .waiting(let correlation):
      let gone = { [hub] in
        hub.exchange.cancelPoll(correlation, target: token.slot, serial: token.serial)
        promise.fail(ClientGone())
      }
      return .later(promise.futureResult, onClientGone: gone)
    case .noSuchWorker, .tooLarge:
      promise.succeed(open(request, lastEventID))
    case .busy:
      promise.succeed(
        .unavailable(
          retryAfterSeconds: Self.busyRetrySeconds,
          "worker \(token.slot), which holds the session, is too busy"))
    }
    return .later(promise.futureResult)
  }

  /// A new session, from now or from where the client left off.
  private func open(_ request: HTTPRequest, _ lastEventID: String?) -> HTTPResponse {
    do throws(RefusedRequest) {
      let wanted = try hub.connectRequest(request)
      if let refusal = admission.refuse() { return refusal }
      let resumption = hub.resumption(lastEventID: lastEventID ?? wanted.lastEventID)
      var start = hub.events.own
      if case .plan(let plan) = resumption { start = plan.seen }
      let connection = hub.table.insert(.longPolling, second: hub.clock.second) {
        [hub, limits] index, serial in
        LongPollConnection(index: index, serial: serial, hub: hub, limits: limits, cursor: start)
      }
      // Always due: the session itself knows what time has brought.
      hub.table.deadlines[Int(connection.index)] = 1
      let initialEventID = connection.initialEventID
      for event in hub.greeting(connection, wanted.subscriptions, errors: wanted.warnings) {
        connection.say(event)
      }
      hub.begin(connection, wanted, resumption)
      return Self.response(Array("\"ok\"".utf8), lastEventID: initialEventID, token: connection.token)
    } catch {
      return error.response
    }
  }

  private static func response(_ body: [UInt8], lastEventID: String, token: String?) -> HTTPResponse {
    let attributes = "; Path=/; HttpOnly; SameSite=Lax"
    var headers = HTTPHeaders([("cache-control", "no-cache")])
    if let token { headers.add(name: "set-cookie", value: "connection_token=\(token)\(attributes)") }
    headers.add(name: "set-cookie", value: "last_event_id=\(lastEventID)\(attributes)")
    return .json(body, headers: headers)
  }

  private static func ns(_ seconds: Int) -> UInt64 { UInt64(max(0, seconds)) * LoopClock.nsPerSecond }
}

/// The client didn't wait for its answer; nobody sees this.
private struct ClientGone: Error {}
