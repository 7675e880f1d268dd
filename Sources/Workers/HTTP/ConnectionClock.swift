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
