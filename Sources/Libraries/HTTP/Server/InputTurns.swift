// Shares the turns of a loop among those who send something. A turn takes in whatever has come on all sockets, and
// it costs up to thousands of times what it costs to send: so each turn has a share of time for it, and what comes
// when that is spent waits for a later one.
//
//   comes in ── the turn has time, and nobody waits? ─► taken in at once
//                 └── no ─► waits ─(in order, as far as each turn's share goes)─► taken in
//
// It is measured, not counted, for what costs most differs from one to the next: handshakes, heads, paths,
// compressed messages. Who waits isn't read, so that no more than one read waits for anybody.

import IPC
import Kit
import NIOCore

/// Somebody who has something to take in.
protocol InputWaiter: AnyObject {
  /// Its turn has come.
  func goOn()
}

/// What has come in, and waits. Belongs to one loop.
final class InputTurns {
  /// Time of a turn for what comes in; what has begun is finished.
  static let shareNs: UInt64 = 20_000_000
  /// Where nothing else brings the next turn: loops of tests have no descriptors.
  static let pause = TimeAmount.microseconds(100)

  private let now: () -> UInt64
  private var waiting = CircularBuffer<any InputWaiter>(initialCapacity: 0)
  /// Of this turn, without what is being measured.
  private var usedNs: UInt64 = 0
  /// nil: nothing is being taken in.
  private var beganNs: UInt64?
  private var isEndScheduled = false
  private var isNextScheduled = false
  private var nextTurn: NextTurn?

  /// - Parameter now: nanoseconds of a clock that never goes back.
  init(now: @escaping () -> UInt64 = MonotonicTime.now) {
    self.now = now
  }

  /// Call on `loop`, before anything comes in.
  func start(on loop: EventLoop) throws(IPCError) {
    nextTurn = try NextTurn(on: loop) { [weak self] in self?.begin(loop) }
  }

  /// Call on the loop, when nothing comes in any more.
  func stop() {
    nextTurn?.stop()
    nextTurn = nil
  }

  /// Whether this turn may take in more.
  var hasTime: Bool {
    guard let beganNs else { return usedNs < Self.shareNs }
    return usedNs + (now() - beganNs) < Self.shareNs
  }

  /// Whether somebody who comes now need not wait.
  var isFree: Bool { (waiting.isEmpty || beganNs != nil) && hasTime }

  /// Takes something in, and counts what it costs. Call on `loop`.
  func takeIn(on loop: EventLoop, _ body: () -> Void) {
    guard beganNs == nil else { return body() }
    scheduleEnd(loop)
    let start = now()
    beganNs = start
    body()
    beganNs = nil
    usedNs += now() - start
  }

  /// Lets somebody go on in a later turn. Call on `loop`.
  func wait(_ waiter: any InputWaiter, on loop: EventLoop) {
    waiting.append(waiter)
    scheduleNext(loop)
  }

  /// The tasks of a turn come behind its sockets.
  private func scheduleEnd(_ loop: EventLoop) {
    guard !isEndScheduled else { return }
    isEndScheduled = true
    loop.assumeIsolated().execute { [self] in
      isEndScheduled = false
      usedNs = 0
    }
  }

  private func scheduleNext(_ loop: EventLoop) {
    guard !isNextScheduled else { return }
    isNextScheduled = true
    if let nextTurn { return nextTurn.call() }
    loop.assumeIsolated().scheduleTask(in: Self.pause) { [self] in begin(loop) }
  }

  private func begin(_ loop: EventLoop) {
    isNextScheduled = false
    goOn(loop)
  }

  private func goOn(_ loop: EventLoop) {
    // Who waits again does so for the next turn.
    var left = waiting.count
    takeIn(on: loop) {
      repeat {
        left -= 1
        waiting.popFirst()?.goOn()
      } while left > 0 && hasTime
    }
    if !waiting.isEmpty { scheduleNext(loop) }
  }
}

/// The first handler of every accepted channel: what the turn has no time for is kept here, and no more is read
/// meanwhile.
final class InputPacer: ChannelDuplexHandler, InputWaiter {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = Never

  /// Of a client that has closed its side NIO reads all that is there; more than this isn't kept.
  private static let mostHeldBytes = BodyReadAllocator.mostBytes

  private let turns: InputTurns
  private var context: ChannelHandlerContext?
  private var held = ByteBuffer()
  private var isWaiting = false
  /// The client has closed its side, behind what is held.
  private var isEndHeld = false
  private var hasSuppressedRead = false

  init(_ turns: InputTurns) {
    self.turns = turns
  }

  /// Whether something has been read that nobody has been given.
  var isHolding: Bool { isWaiting }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  private func leave() {
    context = nil
    isWaiting = false
    held = ByteBuffer()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard isWaiting || !turns.isFree else {
      return turns.takeIn(on: context.eventLoop) { context.fireChannelRead(data) }
    }
    var bytes = unwrapInboundIn(data)
    if held.readableBytes == 0 { held = bytes } else { held.writeBuffer(&bytes) }
    if held.readableBytes > Self.mostHeldBytes { return turns.takeIn(on: context.eventLoop) { release() } }
    guard !isWaiting else { return }
    isWaiting = true
    turns.wait(self, on: context.eventLoop)
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if !isWaiting { context.fireChannelReadComplete() }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if isWaiting, let end = event as? ChannelEvent, end == .inputClosed {
      isEndHeld = true
    } else {
      context.fireUserInboundEventTriggered(event)
    }
  }

  func read(context: ChannelHandlerContext) {
    if isWaiting { hasSuppressedRead = true } else { context.read() }
  }

  func goOn() {
    if isWaiting { release() }
  }

  private func release() {
    guard let context else { return }
    isWaiting = false
    let bytes = held
    held = ByteBuffer()
    context.fireChannelRead(wrapInboundOut(bytes))
    // Whoever takes the channel over may have bytes come by here again.
    guard !isWaiting else { return }
    context.fireChannelReadComplete()
    if isEndHeld {
      isEndHeld = false
      context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    }
    if hasSuppressedRead {
      hasSuppressedRead = false
      context.read()
    }
  }
}
