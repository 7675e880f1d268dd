// The way out of one connection: straight to the socket, and around through NIO while the socket is full; over TLS always
// through NIO, whose channel has the encryption in it.
//
//            ┌── direct ──── send(2) on the descriptor, nothing is waiting
//   event ───┤
//            └── stalled ─── Backlog ── one chunk at a time ──> NIO (it waits for EPOLLOUT) ──> backlog by sendmsg(2)
//                                             ▲ over TLS: the next chunk, of as many events as it has room for ──┘
//
// NIO is used as what it is good at, waiting until a socket is writable; while a chunk is with it nothing is sent
// directly, so order holds. The descriptor belongs to NIO: it is never used after the channel has closed.
// What NIO has been given and hasn't written stays in the backlog, lent: it is still unsent.
// Of a stream that is in the ledger everything is noted before it goes: a single piece by itself (an intent), what waits as such, and
// what goes out together with a change of the connection's state in one step with that (`hold`). Behind each send stands how much has
// gone.
// The outlet must never block. Of events it is given no more when more than `limitBytes` wait (`isOverfull`): those that follow
// stay in the rings. What the gateway says itself is in no ring: past the same bound its owner ends the connection
// (`isOverfullOfAnswers`).

import Glibc
import IPC
import Kit
import NIOCore

/// Whoever has the backlog, and is told. Always on the event loop.
protocol OutletOwner: AnyObject {
  /// What the socket didn't take.
  var waiting: Backlog { get set }
  /// Everything has gone out: events may be sent on the descriptor directly again.
  func outletDidDrain()
  /// The farewell has gone out.
  func outletDidFinish()
  /// No channel can be made: the socket is closed.
  func outletHasNoChannel()
}

final class Outlet {
  /// Bytes given to NIO at a time. Small, because they are copied for this connection alone; over TLS one record.
  private static let chunkBytes = 16 * 1024
  /// Events in one such chunk when all of them go through NIO.
  private static let chunkItems = 256

  private enum State {
    /// Nothing is waiting.
    case direct
    /// A chunk of so many bytes is with NIO.
    case feeding(Int)
    /// The channel is closed, the descriptor is somebody else's.
    case closed
  }

  private var source: Source
  private var descriptor: CInt
  private let limitBytes: Int
  /// Where its channel comes from, on whose event loop everything here is called.
  private enum Source {
    case made(Channel)
    /// It is made when it is first needed: what goes directly needs none. Until then nothing is read from the socket.
    case unmade(() -> Channel?)
    case none
  }

  private var state = State.direct
  private var isFinishing = false
  /// It had another channel before.
  private var hasDetached = false
  /// Nothing goes out before `release`.
  private(set) var isHeld = false
  /// What the ledger has of it; nil: the stream ends with its worker.
  private(set) var entry: OutletEntry?
  /// A chunk is being handed to NIO right now.
  private var isInFeed = false
  /// More than the bound was waiting already of what is in no ring, when more of it came.
  private(set) var isOverfullOfAnswers = false
  /// Bytes that have left the backlog so far.
  private var takenBytes: UInt64 = 0
  private var progress: Boxed<Progress>?

  /// How far the client had come when last looked at, and since when that hasn't changed.
  private struct Progress {
    let takenBytes: UInt64
    let unacknowledgedBytes: CInt
    let second: UInt32
  }
  /// Set by the owner after its own initialization; cleared when the channel closes.
  unowned(safe) var owner: (any OutletOwner)?

  /// - Parameters:
  ///   - channel: on whose event loop everything here is called.
  ///   - descriptor: the channel's socket, borrowed; -1: nothing may be written past the channel (TLS, HTTP/2).
  ///   - limitBytes: bound on what waits here.
  init(channel: Channel, descriptor: CInt, limitBytes: Int) {
    source = .made(channel)
    self.descriptor = descriptor
    self.limitBytes = limitBytes
  }

  /// - Parameter socket: connected, and nobody else's; its channel is given by `whenNeeded`.
  init(socket: CInt, limitBytes: Int) {
    source = .none
    descriptor = socket
    self.limitBytes = limitBytes
  }

  /// - Parameter make: a channel of the socket; nil: that can't be, and the socket is closed.
  func whenNeeded(_ make: @escaping () -> Channel?) { source = .unmade(make) }

  /// nil: there is none, and none can be made.
  var channel: Channel? {
    switch source {
    case .made(let channel): return channel
    case .none: return nil
    case .unmade(let make):
      source = .none
      guard let channel = make() else { return nil }
      source = .made(channel)
      return channel
    }
  }

  /// Lets go of its channel, which ends without the socket. Nothing is sent and nothing read until `whenNeeded` says where another
  /// one comes from.
  ///
  /// - Returns: the socket, and what closes the channel and the number that it had; nil: something is under way.
  func detach() -> (socket: CInt, closeFormer: () -> Void)? {
    guard isIdle, !isHeld, descriptor >= 0 else { return nil }
    switch source {
    case .made(let channel):
      // As long as this one is open the channel's end is nothing to the connection.
      let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
      guard copy >= 0 else { return nil }
      (descriptor, source, hasDetached) = (copy, .none, true)
      return (copy, { channel.close(promise: nil) })
    case .unmade:
      source = .none
      return (descriptor, {})
    case .none: return nil
    }
  }

  /// Whether it has let go of this channel.
  func hasLeft(_ channel: Channel) -> Bool {
    guard hasDetached else { return false }
    if case .made(let own) = source { return own !== channel }
    return true
  }

  private var backlog: Backlog {
    get { owner?.waiting ?? Backlog() }
    _modify {
      if let owner {
        yield &owner.waiting
      } else {
        var nobodys = Backlog()
        yield &nobodys
      }
    }
  }

  private var isDirect: Bool { if case .direct = state { true } else { false } }

  private var isClosed: Bool { if case .closed = state { true } else { false } }

  /// Bytes that are with NIO.
  private var lent: Int { if case .feeding(let count) = state { count } else { 0 } }

  /// Its own socket, which nobody else writes to; nil: it has none (TLS, HTTP/2), or not any more.
  var ownSocket: CInt? { descriptor >= 0 && !isClosed ? descriptor : nil }

  /// Where events may be sent without asking the outlet; -1 while something is waiting, after `finish`, and once closed.
  var directDescriptor: CInt { isDirect && !isFinishing ? descriptor : -1 }

  /// Whether the next piece goes out at once: nothing is waiting, here or with NIO, and no farewell was given.
  var isIdle: Bool { isDirect && backlog.isEmpty && !isFinishing }

  /// What is waiting and not with NIO, counted as `Backlog.costBytes` does.
  var waitingBytes: Int { backlog.costBytes - lent }

  /// Something has been sent and isn't with the kernel yet.
  var isWaiting: Bool { !backlog.isEmpty }

  /// More than the bound was waiting already when the newest piece came: the client doesn't keep up.
  var isOverfull: Bool { backlog.costBeforeNewest - lent > limitBytes }

  /// Whether something has waited for `seconds` and the client has taken nothing of what was sent. It is looked at when this is
  /// called, once per second. Over HTTP/2 what a client takes is seen in steps of a chunk.
  func isStuck(second: UInt32, for seconds: UInt32) -> Bool {
    let unacknowledgedBytes = unacknowledgedBytes
    if let progress = progress?.value, progress.takenBytes == takenBytes,
      progress.unacknowledgedBytes == unacknowledgedBytes
    {
      return second &- progress.second >= seconds
    }
    progress = Boxed(
      Progress(takenBytes: takenBytes, unacknowledgedBytes: unacknowledgedBytes, second: second))
    return false
  }

  /// Nothing waits any more: what is stuck later is so from then on.
  func forgetProgress() { progress = nil }

  /// Bytes in the socket that the peer hasn't acknowledged: a socket in which nothing moves has always the same. 0 for a stream of an
  /// HTTP/2 connection, whose socket isn't its own.
  private var unacknowledgedBytes: CInt {
    var socket = descriptor
    if socket < 0 {
      socket =
        (try? channel?.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: CInt.self) { $0 }) ?? -1
    }
    var bytes: CInt = 0
    guard !isClosed, socket >= 0, ioctl(socket, UInt(TIOCOUTQ), &bytes) == 0 else { return 0 }
    return bytes
  }

  // MARK: In the ledger

  /// From here on what is sent is noted in an entry, whose written bytes are up to what waits.
  func enter(_ entry: LedgerEntry, of ledger: Ledger) { self.entry = OutletEntry(ledger, entry) }

  /// Nothing is noted any more.
  func leaveLedger() { entry = nil }

  /// What is sent from here on waits for `release`: before that it can be noted, with what else has changed. False: it is held
  /// already, by somebody else.
  func hold() -> Bool {
    guard !isHeld, !isClosed else { return false }
    isHeld = true
    return true
  }

  /// Sends what was held.
  ///
  /// - Parameter throughChannel: NIO may still hold some of earlier responses, behind which it has to go.
  func release(throughChannel: Bool = false) {
    isHeld = false
    guard isDirect, !backlog.isEmpty else { return }
    guard !throughChannel, descriptor >= 0 else { return feed() }
    guard sendDirectly() else { return feed() }
    if isFinishing { owner?.outletDidFinish() }
  }

  /// Notes all that waits together with what else is known of the connection, as one.
  ///
  /// - Parameter state: nil: it is more than can be noted.
  func noteAll(state: [UInt8]?, consumed: UInt64) {
    entry?.noteAll(backlog, state: state, consumed: consumed)
  }

  /// Sends one event or other indivisible piece: directly if nothing is waiting, else behind what is.
  ///
  /// - Parameter isInRing: it is of events that can be had again.
  func send(_ bytes: [UInt8], isInRing: Bool = false) {
    guard !isFinishing, !isClosed else { return }
    if !isInRing, !isHeld, backlog.ownCostBytes > limitBytes { isOverfullOfAnswers = true }
    transmit(bytes, isInRing: isInRing)
  }

  /// Sends pieces of which the direct attempt left something over: call for each in order, then `resume`.
  /// `sent`: bytes of this piece that have gone out, 0 for all but the first.
  func keep(_ item: SharedBytes, sent: Int) {
    guard !isFinishing, !isClosed else { return }
    backlog.append(item, sent: sent)
  }

  /// Notes what `keep` has added, and starts to move it.
  ///
  /// - Parameters:
  ///   - turn: of which that is.
  ///   - sent: bytes that the direct attempt has sent.
  func resume(turn: UInt64, sent: Int) {
    entry?.noteWaiting(backlog, behind: sent, turn: turn)
    resume()
  }

  /// Starts to move what waits.
  func resume() {
    if isDirect, !backlog.isEmpty { feed() }
  }

  /// The farewell has gone out.
  var hasFinished: Bool { isFinishing && backlog.isEmpty }

  /// Sends `farewell` behind what is waiting and nothing after it. `dropping`: events that haven't been begun are forgotten
  /// first. Calls the owner's `outletDidFinish`, possibly before it returns.
  func finish(with farewell: [UInt8], dropping: Bool) {
    guard !isFinishing, !isClosed else { return }
    if dropping { backlog.dropEvents(lent: lent) }
    isFinishing = true
    if transmit(farewell) { owner?.outletDidFinish() }
  }

  /// The channel has closed: call it from `channelInactive`.
  func close() {
    state = .closed
    entry = nil
    owner?.waiting = Backlog()
    owner = nil
  }

  /// Whether all of it went out directly; if not it is waiting now.
  @discardableResult
  private func transmit(_ bytes: [UInt8], isInRing: Bool = false) -> Bool {
    guard isDirect, !isHeld else {
      append(bytes, isInRing: isInRing)
      if !isHeld { entry?.noteWaiting(backlog) }
      return false
    }
    guard descriptor >= 0 else {
      append(bytes, isInRing: isInRing)
      feed()
      return false
    }
    guard let intent = entry.map({ $0.intend(bytes) }) else { return attempt(bytes, isInRing: isInRing) }
    // Too long to be noted by itself: it is as what waits, and goes at once.
    guard let intent else {
      append(bytes, isInRing: isInRing)
      entry?.noteWaiting(backlog)
      if sendDirectly() { return true }
      feed()
      return false
    }
    return attempt(bytes, isInRing: isInRing, intent: intent)
  }

  private func attempt(_ bytes: [UInt8], isInRing: Bool, intent: UInt64 = 0) -> Bool {
    if entry != nil { StopPoint.intentWritten.reached() }
    let sent = bytes.withUnsafeBytes { DirectSend.send($0, to: descriptor) }
    if entry != nil { StopPoint.intentSent.reached() }
    let isComplete = sent == bytes.count
    if isComplete {
      entry?.advance(by: sent)
    } else {
      append(bytes, isInRing: isInRing, sent: max(0, sent))
      entry?.noteWaiting(backlog, behind: max(0, sent), intent: intent)
    }
    if entry != nil { StopPoint.intentNoted.reached() }
    entry?.intentDone()
    if !isComplete { feed() }
    return isComplete
  }

  private func append(_ bytes: [UInt8], isInRing: Bool = false, sent: Int = 0) {
    backlog.append(bytes.withUnsafeBytes { SharedBytes(copying: $0, isInRing: isInRing) }, sent: sent)
  }

  private func advance(by count: Int) {
    takenBytes &+= UInt64(count)
    backlog.advance(by: count)
    entry?.advance(by: count, leaving: backlog)
  }

  /// Gives NIO the next chunk, whatever kept it from going directly: a full socket makes NIO wait until there is room,
  /// a broken one makes it close the channel.
  private func feed() {
    guard let channel else {
      owner?.outletHasNoChannel()
      return
    }
    isInFeed = true
    repeat {
      let chunk = nextChunk(channel.allocator)
      let count = chunk.readableBytes
      state = .feeding(count)
      channel.writeAndFlush(chunk).assumeIsolated().whenSuccess { [self] in
        guard case .feeding = state else { return }
        state = .direct
        advance(by: count)
        // Written at once: whoever feeds goes on, and not one level deeper for each chunk.
        if !isInFeed { drain() }
      }
    } while isDirect && descriptor < 0 && !backlog.isEmpty
    isInFeed = false
    if isDirect { drain() }
  }

  private func nextChunk(_ allocator: ByteBufferAllocator) -> ByteBuffer {
    var chunk = allocator.buffer(capacity: 0)
    backlog.forEachStretch(atMost: descriptor < 0 ? Self.chunkItems : 1) { stretch in
      chunk.writeBytes(stretch.prefix(Self.chunkBytes - chunk.readableBytes))
    }
    return chunk
  }

  /// Sends what is waiting until the socket is full or nothing is left.
  private func drain() {
    guard !isHeld else { return }
    if descriptor < 0, !backlog.isEmpty { return feed() }
    guard sendDirectly() else { return feed() }
    if isFinishing { owner?.outletDidFinish() } else { owner?.outletDidDrain() }
  }

  /// Whether nothing is left.
  private func sendDirectly() -> Bool {
    while !backlog.isEmpty {
      let sent = sendWaiting()
      guard sent > 0 else { return false }
      advance(by: sent)
    }
    return true
  }

  private func sendWaiting() -> Int {
    guard descriptor >= 0 else { return 0 }
    return withUnsafeTemporaryAllocation(of: iovec.self, capacity: DirectSend.vectorLimit) { vectors in
      var count = 0
      backlog.forEachStretch(atMost: DirectSend.vectorLimit) { stretch in
        vectors.initializeElement(at: count, to: DirectSend.vector(stretch))
        count += 1
      }
      return DirectSend.send(UnsafeMutableBufferPointer(rebasing: vectors[..<count]), to: descriptor)
    }
  }
}

/// One stream's entry in the ledger: how far its output has gone, and what waits.
struct OutletEntry {
  private let ledger: Ledger
  private let entry: LedgerEntry
  /// The last turn of which what waits has had something.
  private var turn: UInt64 = 0
  /// More waits than is noted.
  private var isTooMuch = false

  init(_ ledger: Ledger, _ entry: LedgerEntry) {
    self.ledger = ledger
    self.entry = entry
  }

  // MARK: Output

  /// A piece is about to be sent, while nothing waits. nil: it is too long to be noted like this.
  func intend(_ bytes: [UInt8]) -> UInt64? { ledger.intend(entry, bytes) }

  /// What was intended has gone, or is noted as waiting.
  func intentDone() { ledger.intentDone() }

  /// So many bytes have gone.
  func advance(by count: Int) { ledger.advance(entry, by: count) }

  /// The same of what waits.
  mutating func advance(by count: Int, leaving waiting: Backlog) {
    ledger.advance(entry, by: count)
    if waiting.isEmpty {
      ledger.waitingHasGone(entry)
      isTooMuch = false
    } else if isTooMuch, waiting.byteCount <= Ledger.mostWaitingBytes {
      noteWaiting(waiting)
    }
  }

  /// Something waits, or more than before.
  ///
  /// - Parameters:
  ///   - sent: bytes before it that have gone and aren't noted yet.
  ///   - turn: the turn of which it is now; nil: of none that isn't in it already.
  ///   - intent: the piece of which it is; 0: of none.
  mutating func noteWaiting(_ waiting: Backlog, behind sent: Int = 0, turn: UInt64? = nil, intent: UInt64 = 0)
  {
    if let turn { self.turn = turn }
    let written = ledger.written(entry) &+ UInt64(sent)
    isTooMuch = !ledger.commit(
      waiting: waiting.byteCount, written: written, turn: self.turn, intent: intent, to: entry
    ) {
      waiting.copy(to: $0)
    }
    if sent > 0 { ledger.setWritten(entry, written) }
  }

  // MARK: State

  /// What waits and what else is known of the connection have changed.
  ///
  /// - Parameter state: nil: it is more than can be noted.
  mutating func noteAll(_ waiting: Backlog, state: [UInt8]?, consumed: UInt64) {
    guard let state, waiting.byteCount <= Ledger.mostWaitingBytes else {
      noteWaiting(waiting)
      return note(state: state, consumed: consumed)
    }
    let cold = LedgerCold(
      written: ledger.written(entry), turn: turn, consumed: consumed, waiting: waiting.bytes, state: state)
    isTooMuch = !ledger.commit(cold, to: entry)
    ledger.setConsumed(entry, consumed)
  }

  /// What is known of the connection besides its output has changed.
  ///
  /// - Parameters:
  ///   - state: nil: it is more than can be noted.
  ///   - consumed: bytes of the client's that have had their effects, or stand in `state`.
  func note(state: [UInt8]?, consumed: UInt64) {
    guard let state else { return ledger.markStateNotKept(entry) }
    ledger.commit(state: state, consumed: consumed, to: entry)
    ledger.setConsumed(entry, consumed)
  }

  /// So many bytes of the client's have had their effects, and nothing is kept of them.
  func note(consumed: UInt64) { ledger.setConsumed(entry, consumed) }
}
