// What a connection of the front does with what happens to it. Pure: events in, steps out; HTTPConnection carries them out.
//
//   open ──▶ awaiting ──▶ open               the responder answers later
//    │ │ └─▶ streaming ──▶ open              the exchange handles the request as it comes
//    │ └───▶ leaving ──▶ gone                the channel gets a new owner, once everything before has been written
//    └─────▶ finishing ──▶ lingering ──▶ gone   the last response is on its way; the client can read it while its input is thrown away
//                    └──────────────────▶ gone   …or has no need to
//
// Order is kept by having one request at a time: while its response is outstanding nothing behind it is parsed, and reading stops once
// bytes wait. A request that has come whole before its turn waits in `open`.

/// What the state has to know of a request that is handled as it comes.
protocol StreamedRequest: AnyObject {
  var body: StreamedBody { get }
  /// Whether the exchange knows of it.
  var isBegun: Bool { get }
}

struct HTTPConnectionState<Stream: StreamedRequest, Leave> {
  private enum Phase {
    /// With a whole request that waits for its turn, if there is one.
    case open(HTTPRequest?)
    case awaiting(onClientGone: (() -> Void)?, hold: AssemblyHold?)
    case streaming(Stream)
    case leaving(Leave)
    case finishing(linger: Bool, isFlushed: Bool)
    case lingering
    case gone
  }

  /// What the state doesn't keep itself.
  struct Surroundings {
    /// A head has come of which nobody has said what is to be done with its body.
    var isUndecided = false
    /// The body of a request is on its way.
    var isReceiving = false
    /// Bytes wait that nobody has parsed.
    var isBehind = false
    /// More may be written in this turn.
    var hasRoom = true
  }

  private var phase = Phase.open(nil)
  private(set) var isWritable = true
  private(set) var hasInputEnded = false
  /// NIO has asked for a read that was held back.
  private var owesRead = false
  /// The turn had no time left: no request goes to the responder before a later one.
  private(set) var waitsForTurn = false
  /// A client waits for `100 Continue`, which must stay behind the responses before it.
  private var owesInvitation = false

  // MARK: What may be done

  /// Whether bytes from the client are still of interest.
  var isListening: Bool {
    switch phase {
    case .open, .awaiting, .streaming: true
    case .leaving, .finishing, .lingering, .gone: false
    }
  }

  /// Whether nothing is answered any more.
  var isEnding: Bool {
    switch phase {
    case .open, .awaiting, .streaming, .leaving: false
    case .finishing, .lingering, .gone: true
    }
  }

  private var isGone: Bool { if case .gone = phase { true } else { false } }
  var isAwaiting: Bool { if case .awaiting = phase { true } else { false } }

  var stream: Stream? { if case .streaming(let stream) = phase { stream } else { nil } }

  /// Whether nothing is going on but perhaps a head that comes.
  var isIdle: Bool { if case .open(nil) = phase { true } else { false } }

  /// Whether nothing is going on but waiting, for a request or for a response, and nothing has come that isn't dealt with.
  func isAtRest(_ seen: Surroundings) -> Bool {
    guard isWritable, !hasInputEnded, !waitsForTurn else { return false }
    guard !seen.isUndecided, !seen.isReceiving, !seen.isBehind else { return false }
    return switch phase {
    case .open(nil), .awaiting: true
    case .open, .streaming, .leaving, .finishing, .lingering, .gone: false
    }
  }

  /// Whether another request may go to the responder.
  private func mayHandle(_ seen: Surroundings) -> Bool {
    guard case .open = phase else { return false }
    return isWritable && !waitsForTurn && seen.hasRoom
  }

  /// Whether a head may be decided about now.
  func mayDecide(_ seen: Surroundings) -> Bool { isIdle && mayHandle(seen) }

  /// Whether more bytes may be parsed.
  func mayParse(_ seen: Surroundings) -> Bool {
    switch phase {
    case .open(nil): mayHandle(seen)
    case .streaming(let stream): stream.body.wantsBytes
    case .open, .awaiting, .leaving, .finishing, .lingering, .gone: false
    }
  }

  // MARK: Reading

  /// NIO wants to read. False: it will be told later. A streamed body is read while its exchange wants it, whether or not what was
  /// written is taken.
  mutating func mayRead(_ seen: Surroundings) -> Bool {
    let isHeld =
      switch phase {
      case .streaming(let stream) where !stream.body.hasEnd: !stream.body.wantsBytes
      case .open(.some): true
      case .open(nil), .awaiting, .streaming, .leaving: waitsForTurn || !isWritable || seen.isBehind
      case .finishing, .lingering, .gone: false
      }
    owesRead = isHeld
    return !isHeld
  }

  /// Whether a read was held back; it is made up for now.
  mutating func takeOwedRead() -> Bool {
    defer { owesRead = false }
    return owesRead
  }

  mutating func writable(_ isWritable: Bool) { self.isWritable = isWritable }

  /// The turn has no time for another request. False: that is known.
  mutating func waitForTurn() -> Bool {
    guard !waitsForTurn else { return false }
    waitsForTurn = true
    return true
  }

  /// The later turn has come. False: nobody waits for it any more.
  mutating func turnCame() -> Bool {
    defer { waitsForTurn = false }
    return waitsForTurn
  }

  enum EndOfInput {
    case close
    /// What was asked is answered first.
    case goOn
  }

  /// The client has closed its side. What it has asked is answered, unless the response was to come later.
  mutating func inputEnded(_ seen: Surroundings) -> EndOfInput {
    hasInputEnded = true
    return switch phase {
    case .lingering, .awaiting, .streaming: .close
    case .open where seen.isReceiving: .close
    case .open, .leaving, .finishing, .gone: .goOn
    }
  }

  // MARK: Requests

  mutating func oweInvitation() { owesInvitation = true }

  /// A whole request. Returns it if it may be handled now.
  mutating func ready(_ request: HTTPRequest, _ seen: Surroundings) -> HTTPRequest? {
    guard case .open(nil) = phase else { return nil }
    if mayHandle(seen) {
      owesInvitation = false
      return request
    }
    phase = .open(request)
    return nil
  }

  enum Refused {
    case answer
    /// Of the body that this exchange gets.
    case fail(Stream)
    /// Nobody is there to be told, or the response is somebody else's.
    case nothing
  }

  /// What the client sends is refused, and is the last that is taken.
  func refusing() -> Refused {
    switch phase {
    case .open(nil): return .answer
    case .streaming(let stream) where !stream.body.hasEnd: return .fail(stream)
    case .open, .awaiting, .streaming, .leaving, .finishing, .lingering, .gone: return .nothing
    }
  }

  /// The responder answers later.
  mutating func await(_ onClientGone: (() -> Void)?, hold: AssemblyHold?) {
    if case .open = phase { phase = .awaiting(onClientGone: onClientGone, hold: hold) }
  }

  struct Settled {
    /// What the request holds of the budget.
    let hold: AssemblyHold?
  }

  /// What was awaited has come. nil: nobody waits for it any more.
  mutating func settle() -> Settled? {
    guard case .awaiting(_, let hold) = phase else { return nil }
    phase = .open(nil)
    return Settled(hold: hold)
  }

  mutating func begin(_ stream: Stream) {
    owesInvitation = false
    if case .open = phase { phase = .streaming(stream) }
  }

  /// Nothing more comes of the exchange. Returns it, if there is one.
  mutating func endStream() -> Stream? {
    guard case .streaming(let stream) = phase else { return nil }
    phase = .open(nil)
    return stream
  }

  /// The channel is to be given away.
  mutating func leave(_ leave: Leave) {
    if case .open = phase { phase = .leaving(leave) }
  }

  // MARK: The end

  /// Nothing is answered any more. False: that is known.
  mutating func finish(linger: Bool) -> Bool {
    switch phase {
    case .open, .awaiting, .streaming:
      phase = .finishing(linger: linger, isFlushed: false)
      return true
    case .leaving, .finishing, .lingering, .gone: return false
    }
  }

  enum Flush {
    case goOn
    /// Of the last response.
    case last
    case nothing
  }

  /// The turn ends.
  mutating func flush() -> Flush {
    switch phase {
    case .open, .awaiting, .streaming, .leaving: return .goOn
    case .finishing(let linger, isFlushed: false):
      phase = .finishing(linger: linger, isFlushed: true)
      return .last
    case .finishing, .lingering, .gone: return .nothing
    }
  }

  enum AfterLast {
    case close
    /// The client may still send what nobody reads.
    case linger
    case nothing
  }

  /// The last response has been taken.
  mutating func lastTaken() -> AfterLast {
    guard case .finishing(let linger, _) = phase else { return .nothing }
    guard linger, !hasInputEnded else { return .close }
    phase = .lingering
    return .linger
  }

  /// The new owner can have the channel. Returns what it gets, and whether it is owed a read; nil: it is too late.
  mutating func takeLeave() -> (leave: Leave, owesRead: Bool)? {
    guard case .leaving(let leave) = phase, !hasInputEnded else { return nil }
    phase = .open(nil)
    return (leave, takeOwedRead())
  }

  /// What was going on when the connection ended.
  struct Rest {
    var onClientGone: (() -> Void)?
    var stream: Stream?
    var leave: Leave?
  }

  /// The connection is over. nil: it was.
  mutating func end() -> Rest? {
    guard !isGone else { return nil }
    var rest = Rest()
    switch phase {
    case .awaiting(let onClientGone, _): rest.onClientGone = onClientGone
    case .streaming(let stream): rest.stream = stream
    case .leaving(let leave): rest.leave = leave
    case .open, .finishing, .lingering, .gone: break
    }
    phase = .gone
    waitsForTurn = false
    return rest
  }

  // MARK: Going on

  enum Step {
    case handle(HTTPRequest)
    /// Asks how the request is to be handled whose head has come.
    case decide
    /// Gives the exchange what there is for it.
    case deliver(Stream)
    /// Gives the channel away.
    case leave
    case invite
    case parse
    case finish
    case close
    /// Reads if a read was held back.
    case rest
  }

  /// What has become possible, most urgent first. After `leave`, `parse`, `finish`, `close` and `rest` nothing else is.
  mutating func next(_ seen: Surroundings) -> Step {
    switch phase {
    case .open(let request?) where mayHandle(seen):
      phase = .open(nil)
      owesInvitation = false
      return .handle(request)
    case .open(nil) where seen.isUndecided && mayHandle(seen): return .decide
    case .streaming(let stream) where !stream.isBegun || stream.body.hasNext: return .deliver(stream)
    case .leaving: return .leave
    case .open, .awaiting, .streaming, .finishing, .lingering, .gone: break
    }
    guard mayParse(seen) else { return .rest }
    if owesInvitation {
      owesInvitation = false
      if seen.isReceiving { return .invite }
    }
    if seen.isBehind { return .parse }
    guard hasInputEnded else { return .rest }
    // What an exchange still wants won't come.
    return stream == nil ? .finish : .close
  }
}
