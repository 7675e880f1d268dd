// How long a connection may take for what it does now. Pure: ticks in, verdicts out; a tick is a second.
//
//   firstByte ─byte▶ head ─end▶ body ─end▶ reply ─answered▶ idle ─byte▶ head …        finishing, lingering: at the end
//
// Ticks come from the server, which sweeps all connections once a second: an idle connection costs no timer.

/// The time-outs of one connection.
struct ConnectionClock {
  enum Waiting: Equatable {
    case firstByte, head, body, reply, idle, finishing, lingering
  }

  enum Verdict: Equatable {
    case fine
    /// Close without a word: nothing was asked, or nobody reads.
    case close
    /// Answer 408 with this detail.
    case timeout(String)
    /// The request's body comes too slowly: answer 408 with this detail.
    case slowBody(String)
    /// The answer is taken too slowly: close.
    case slowReader
  }

  private(set) var waiting = Waiting.firstByte
  private var since: Int
  private var bodySince: Int
  private var unwritableSince: Int?
  private var upload = BodyRateMeter()
  private var download = BodyRateMeter()
  private var isUploadSlow = false
  private var isDownloadSlow = false

  init(tick: Int) {
    since = tick
    bodySince = tick
  }

  mutating func received(at tick: Int) {
    if waiting == .firstByte || waiting == .idle {
      waiting = .head
      since = tick
    }
  }

  mutating func headEnded(at tick: Int) {
    waiting = .body
    since = tick
    bodySince = tick
    upload = BodyRateMeter()
  }

  mutating func bodyMoved(_ bytes: Int, at tick: Int) {
    since = tick
    upload.moved(bytes)
  }

  /// A streamed exchange waits for its client's body.
  mutating func bodyAwaited(at tick: Int) {
    waiting = .body
    since = tick
    bodySince = tick
  }

  /// The client has taken some of what was written.
  mutating func outputMoved(_ bytes: Int, at tick: Int) {
    download.moved(bytes)
    if unwritableSince != nil { unwritableSince = tick }
    if waiting == .finishing || waiting == .idle { since = tick }
  }

  /// Nothing more is expected from the client for now.
  mutating func requestEnded() {
    waiting = .reply
  }

  /// An answer was given; `isReceiving`: the body of the next request is on its way.
  mutating func answered(at tick: Int, isReceiving: Bool) {
    waiting = isReceiving ? .body : .idle
    since = tick
    bodySince = tick
    upload = BodyRateMeter()
  }

  mutating func finishing(at tick: Int) {
    waiting = .finishing
    since = tick
  }

  mutating func lingering(at tick: Int) {
    waiting = .lingering
    since = tick
  }

  mutating func writable(_ isWritable: Bool, at tick: Int) {
    unwritableSince = isWritable ? nil : (unwritableSince ?? tick)
  }

  /// A second has passed.
  ///
  /// - Parameters:
  ///   - isBodyRead: the client's body is taken as it comes, if one is awaited.
  ///   - isOutputWaiting: something was written that the client hasn't taken.
  ///   - outputStepBytes: how much it takes before that is seen.
  mutating func secondPassed(
    isBodyRead: Bool, isOutputWaiting: Bool, outputStepBytes: Int, limits: HTTPLimits
  ) {
    let least = limits.minimumBodyRate
    guard least.bytesPerSecond > 0 else { return }
    if upload.secondPassed(isAwaited: isBodyRead && waiting == .body, least) { isUploadSlow = true }
    if download.secondPassed(isAwaited: isOutputWaiting, least.seen(inStepsOf: outputStepBytes)) {
      isDownloadSlow = true
    }
  }

  func verdict(at tick: Int, limits: HTTPLimits) -> Verdict {
    if isDownloadSlow { return .slowReader }
    if let unwritableSince, tick - unwritableSince >= limits.writeStallSeconds { return .close }
    let elapsed = tick - since
    switch waiting {
    case .firstByte: return elapsed >= limits.headSeconds ? .close : .fine
    case .idle: return elapsed >= limits.idleSeconds ? .close : .fine
    case .finishing: return elapsed >= limits.writeStallSeconds ? .close : .fine
    case .lingering: return elapsed >= limits.lingerSeconds ? .close : .fine
    case .reply: return .fine
    case .head:
      guard elapsed >= limits.headSeconds else { return .fine }
      return .timeout("request head not complete \(limits.headSeconds) s after its first byte")
    case .body:
      if isUploadSlow {
        let least = limits.minimumBodyRate
        return .slowBody(
          "request body of fewer than \(least.bytesPerSecond) bytes/s over \(least.windowSeconds) s (MIN_BODY_RATE)"
        )
      }
      if elapsed >= limits.bodyStallSeconds {
        return .timeout("no byte of the request body for \(limits.bodyStallSeconds) s")
      }
      guard tick - bodySince >= limits.bodySeconds else { return .fine }
      return .timeout("request body not complete after \(limits.bodySeconds) s")
    }
  }
}

/// The least rate of a body, and over how long it is averaged.
struct MinimumBodyRate: Equatable, Sendable {
  /// 0: there is none.
  var bytesPerSecond: Int
  var windowSeconds: Int

  /// For bytes whose moving is only seen in steps of this size: a window in which there would be one.
  func seen(inStepsOf bytes: Int) -> MinimumBodyRate {
    guard bytesPerSecond > 0 else { return self }
    let seconds = (bytes + bytesPerSecond - 1) / bytesPerSecond
    return MinimumBodyRate(bytesPerSecond: bytesPerSecond, windowSeconds: max(windowSeconds, seconds))
  }
}

/// Whether a client sends or takes a body as fast as it must on average.
///
///     second   awaited  awaited  not awaited  awaited …          only seconds in which the client was the one waited for count;
///     bytes       50       0        400          20              bytes count whenever they come
///              └──────────── a window of such seconds ─┘ ▶ fewer bytes than rate × window: too slow ▶ the next window
struct BodyRateMeter {
  private var awaitedSeconds = 0
  private var movedBytes = 0
  private var wasAwaited = false

  mutating func moved(_ bytes: Int) { movedBytes += bytes }

  /// A second has passed. It counts if the client was waited for at both of its ends: where others were waited for in between, bytes
  /// have moved.
  ///
  /// - Returns: whether the client was too slow in the window that ends now.
  mutating func secondPassed(isAwaited: Bool, _ least: MinimumBodyRate) -> Bool {
    defer { wasAwaited = isAwaited }
    guard least.bytesPerSecond > 0, isAwaited, wasAwaited else { return false }
    awaitedSeconds += 1
    guard awaitedSeconds >= least.windowSeconds else { return false }
    let isSlow = movedBytes < least.bytesPerSecond * awaitedSeconds
    awaitedSeconds = 0
    movedBytes = 0
    return isSlow
  }
}

/// How much of what was written the client takes, seen once a second.
struct TakenOutput {
  private var bytes = 0
  /// Whether something was written that it hadn't taken when it was last seen.
  private(set) var isBehind = false

  /// Returns how much it has taken since; nil: nothing.
  mutating func note(written: Int, untaken: Int) -> Int? {
    isBehind = untaken > 0
    let before = bytes
    bytes = written - untaken
    return bytes == before ? nil : max(0, bytes - before)
  }
}
