// GET …/longpolling: opens a session, or waits for its next events, wherever the session lives.
//
//   no token ─────────────────────► new session: "ok" and cookies
//   session of this worker ───────► its buffer: at once, or when an event comes
//   session of another worker, or
//   perhaps of the other seat ────► asked over a request ring ── no answer ──► 503: the next poll will know more
//   session on its way here ──────► when it has arrived, or after `Arrivals.patienceMs` 503
//   session that is gone, or of
//   another gateway ──────────────► with subscriptions a new session, which goes on where the client left off; else 410

import HTTP
import Kit
import NIOCore
import NIOHTTP1
import Settings

final class LongPollRoute {
  /// How much longer than the poll itself another worker's answer may take.
  private static let answerGraceSeconds = 2
  private static let busyRetrySeconds = 1

  private let names: ConnectionNames
  private let connections: OpenConnections
  private let polls: Polls
  private let peers: PeerRequests
  private let arrivals: Arrivals
  private let admission: Admission
  private let access: Access
  private let clock: LoopClock
  private let limits: LongPollSession.Limits
  private let waitSeconds: Int

  /// - Parameter peers: asks the workers that hold other sessions.
  init(
    _ names: ConnectionNames, _ connections: OpenConnections, _ polls: Polls, _ peers: PeerRequests,
    _ arrivals: Arrivals, _ admission: Admission, _ access: Access, _ clock: LoopClock, _ settings: Settings
  ) {
    self.names = names
    self.connections = connections
    self.polls = polls
    self.peers = peers
    self.arrivals = arrivals
    self.admission = admission
    self.access = access
    self.clock = clock
    waitSeconds = settings.longpollingWaitSeconds
    limits = LongPollSession.Limits(settings)
  }

  func respond(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    clock.refresh()
    let query = request.query
    do throws(RefusedRequest) {
      let lastEventID =
        try ConnectRequest.value("last_event_id", query) ?? Cookies.value("last_event_id", request.headers)
      let text =
        try ConnectRequest.value("connection_token", query)
        ?? Cookies.value("connection_token", request.headers)
      guard let text, TokenCipher.hasForm(text) else { return open(request, lastEventID, loop) }
      guard let token = names.open(text) else { return beginAnew(request, lastEventID, loop) }
      let shown = try access.authorize(request, jwt: try ConnectRequest.value("jwt", query)).credentials
      let poll = Poll(token: token, request: request, lastEventID: lastEventID, shown: shown)
      guard names.isHere(token.slot) else { return ask(poll, loop) { [self] in beginAnew(poll, loop) } }
      return find(poll, loop)
    } catch {
      return access.refusal(error, on: loop) { [self] in respond(request, on: loop) }
    }
  }

  private struct Poll {
    let token: ConnectionToken
    let request: HTTPRequest
    let lastEventID: String?
    let shown: [Credential]
  }

  /// A poll of a session of this worker's place.
  ///
  /// - Parameter isLast: the process at the other seat, if there is one, hasn't it.
  private func find(_ poll: Poll, _ loop: EventLoop, isLast: Bool = false) -> Reply {
    guard !arrivals.expects(poll.token.serial) else { return whenArrived(poll, loop) }
    if let connection = polls.session(serial: poll.token.serial) { return answer(poll, connection, loop) }
    guard !isLast, peers.isSiblingThere else { return beginAnew(poll, loop) }
    return ask(poll, loop) { [self] in find(poll, loop, isLast: true) }
  }

  /// A poll of a session of this worker, which may leave for the other seat while it waits.
  private func answer(_ poll: Poll, _ connection: Connection, _ loop: EventLoop) -> Reply {
    var answered: Reply?
    var complete: ((Reply) -> Void)?
    let token = connections.token(of: connection)
    let id = polls.poll(connection, lastEventID: poll.lastEventID, shown: poll.shown) { [self] answer in
      let reply =
        answer.isOfNoConnection
        ? find(poll, loop) : .response(Self.response(answer, token: token, isTLS: poll.request.isTLS))
      if let complete { complete(reply) } else { answered = reply }
    }
    if let answered { return answered }
    return Deferred.reply(on: loop) {
      complete = $0
      return { if let id { connection.polls?.cancel(poll: id) } }
    }
  }

  /// A poll of a session that isn't here yet.
  private func whenArrived(_ poll: Poll, _ loop: EventLoop) -> Reply {
    Deferred.reply(on: loop) { complete in
      let ticket = arrivals.wait(for: poll.token.serial) { [self] outcome in
        switch outcome {
        case .settled: complete(respond(poll.request, on: loop))
        case .late:
          complete(.response(Self.response(.notYetHere, token: nil, isTLS: poll.request.isTLS)))
        }
      }
      guard let ticket else { return nil }
      return { [arrivals] in arrivals.cancel(ticket) }
    }
  }

  /// A poll of a session of another worker.
  ///
  /// - Parameter otherwise: no other worker has it.
  private func ask(_ poll: Poll, _ loop: EventLoop, otherwise: @escaping () -> Reply) -> Reply {
    let token = poll.token
    let sealed = names.text(of: token)
    return Deferred.reply(on: loop) { complete in
      let asked = peers.ask(
        token.slot, .poll(serial: token.serial, lastEventID: poll.lastEventID, shown: poll.shown),
        deadlineNs: clock.nowNs + Self.ns(waitSeconds + Self.answerGraceSeconds)
      ) { answer in
        // The other worker hangs, and may have the session yet; or this one ends.
        guard let answer else { return complete(.response(Self.unanswered(token))) }
        guard Self.answersPolls(answer.status) else { return complete(otherwise()) }
        complete(.response(Self.response(answer, token: sealed, isTLS: poll.request.isTLS)))
      }
      switch asked {
      case .waiting(let correlation):
        return { [peers] in peers.cancelPoll(correlation, serial: token.serial) }
      case .noSuchWorker, .tooLarge:
        complete(otherwise())
      case .busy:
        complete(
          .response(
            .unavailable(
              retryAfterSeconds: Self.busyRetrySeconds,
              "worker \(token.slot), which holds the session, is too busy")))
      }
      return nil
    }
  }

  private static func unanswered(_ token: ConnectionToken) -> HTTPResponse {
    .unavailable(
      retryAfterSeconds: busyRetrySeconds,
      "worker \(token.slot), which holds the session, didn't answer in time")
  }

  private func beginAnew(_ poll: Poll, _ loop: EventLoop) -> Reply {
    beginAnew(poll.request, poll.lastEventID, loop)
  }

  /// The session is gone. A client that says what it wants gets a new one; else it would wait for events that nobody has asked for.
  private func beginAnew(_ request: HTTPRequest, _ lastEventID: String?, _ loop: EventLoop) -> Reply {
    guard !request.query.contains(where: { $0.name == "subscriptions" && !$0.value.isEmpty }) else {
      return open(request, lastEventID, loop)
    }
    var response = RefusedRequest(
      status: 410, detail: "the session no longer exists: begin another one, with the parameter subscriptions"
    ).response
    for name in ["connection_token", "last_event_id"] {
      response.headers.add(name: "set-cookie", value: "\(name)=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
    }
    return .response(response)
  }

  /// A new session, from now or from where the client left off.
  private func open(_ request: HTTPRequest, _ lastEventID: String?, _ loop: EventLoop) -> Reply {
    admission.admit(request, on: loop) { [self] wanted in
      wanted.lastEventID = lastEventID ?? wanted.lastEventID
      return { [self, wanted] in .response(open(wanted, isTLS: request.isTLS)) }
    }
  }

  private func open(_ wanted: ConnectRequest, isTLS: Bool) -> HTTPResponse {
    let resumption = connections.events.resumption(lastEventID: wanted.lastEventID)
    var start = connections.events.own
    if case .plan(let plan) = resumption { start = plan.seen }
    let session = LongPollSession(limits: limits, cursor: start, nowNs: clock.nowNs)
    let connection = connections.table.insert(second: clock.second) { [connections, polls] index, serial in
      Connection(
        polled: ConnectionState(serial: serial, .longPolling(Boxed(session))), at: index, of: connections,
        polls)
    }
    let isLost = resumption.beginning(own: connections.events.own) == nil
    let initialEventID = isLost ? LongPollPosition.unknown.text : session.initialEventID
    for event in connections.greeting(connection, wanted, resumption) { connection.say(event) }
    connections.begin(connection, wanted, resumption)
    connection.polls?.enterLedger()
    return Self.response(
      WorkerAnswer(status: 200, text: initialEventID, body: Array("\"ok\"".utf8)),
      token: connections.token(of: connection), isTLS: isTLS)
  }

  /// Whether whoever holds the session has judged the poll, 200 or refused for its tokens, or can't yet.
  private static func answersPolls(_ status: UInt16) -> Bool { [200, 401, 403, 503].contains(status) }

  /// The answer to a poll, or its refusal.
  private static func response(_ answer: WorkerAnswer, token: String?, isTLS: Bool) -> HTTPResponse {
    guard answer.status == 200 else {
      return RefusedRequest(status: Int(answer.status), detail: answer.text).response
    }
    let attributes = "; Path=/; HttpOnly; SameSite=Lax" + (isTLS ? "; Secure" : "")
    var headers = HTTPFields([("cache-control", "no-cache")])
    if let token { headers.add(name: "set-cookie", value: "connection_token=\(token)\(attributes)") }
    headers.add(name: "set-cookie", value: "last_event_id=\(answer.text)\(attributes)")
    return .json(answer.body, headers: headers)
  }

  private static func ns(_ seconds: Int) -> UInt64 { UInt64(max(0, seconds)) * LoopClock.nsPerSecond }
}
