// Lines on their way to a descriptor whose reader may be slow or gone, when there may be many of them and the caller must never
// wait: they are kept, bounded in bytes, and a thread of their own writes them. What finds no room is dropped and counted.
//
//   any thread ──write──▶ waiting (≤ maximumBytes) ──▶ thread: up to 4096 bytes of whole lines at once ──▶ descriptor
//
// So many bytes go into a pipe in one piece (PIPE_BUF): lines of other processes don't get between.

import Glibc
import IPC
import Synchronization

final class LineWriter: Sendable {
  /// Of lines that wait.
  static let maximumBytes = 1 << 20
  private static let mostBytesAtOnce = 4096
  /// How often a thread that waits for its reader looks whether it is to end.
  private static let lookMilliseconds: CInt = 100

  private struct State {
    var waiting: [[UInt8]] = []
    var waitingBytes = 0
    var isClosing = false
  }

  private let descriptor: CInt
  private let maximumBytes: Int
  private let dropped: Metric?
  private let state = Mutex(State())
  private let wake: Descriptor
  private let ended: Descriptor

  /// Starts the thread.
  ///
  /// - Parameters:
  ///   - descriptor: stays the caller's.
  ///   - dropped: counts the lines that weren't written.
  init(_ descriptor: CInt, maximumBytes: Int = LineWriter.maximumBytes, dropped: Metric?) throws(IPCError) {
    self.descriptor = descriptor
    self.maximumBytes = maximumBytes
    self.dropped = dropped
    wake = try EventFD.create()
    ended = try EventFD.create()
    let me = Unmanaged.passRetained(self)
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<LineWriter>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, me.toOpaque())
    guard result == 0 else {
      me.release()
      throw IPCError.system(call: "pthread_create", errno: result)
    }
    pthread_detach(thread)
  }

  func write(_ line: [UInt8]) {
    let (isTaken, wasEmpty) = state.withLock { state in
      guard !state.isClosing, line.count <= maximumBytes - state.waitingBytes else { return (false, false) }
      let wasEmpty = state.waiting.isEmpty
      state.waiting.append(line)
      state.waitingBytes += line.count
      return (true, wasEmpty)
    }
    if wasEmpty { EventFD.signal(wake.rawValue) }
    if !isTaken { dropped?.add() }
  }

  /// Takes no more lines, and waits until those that it has are written, but not for ever.
  func close(patienceMilliseconds: CInt) {
    state.withLock { $0.isClosing = true }
    EventFD.signal(wake.rawValue)
    Self.wait(ended.rawValue, POLLIN, milliseconds: patienceMilliseconds)
  }

  // MARK: On the thread

  private func run() {
    while true {
      let (lines, isClosing) = state.withLock { state in
        let lines = state.waiting
        state.waiting = []
        return (lines, state.isClosing)
      }
      writeAll(lines)
      guard lines.isEmpty else { continue }
      if isClosing { break }
      Self.wait(wake.rawValue, POLLIN, milliseconds: -1)
      EventFD.drain(wake.rawValue)
    }
    EventFD.signal(ended.rawValue)
  }

  private func writeAll(_ lines: [[UInt8]]) {
    var piece: [UInt8] = []
    var count = 0
    for line in lines {
      if !piece.isEmpty, piece.count + line.count > Self.mostBytesAtOnce { flush(&piece, &count) }
      piece += line
      count += 1
    }
    if !piece.isEmpty { flush(&piece, &count) }
  }

  private func flush(_ piece: inout [UInt8], _ count: inout Int) {
    if !put(piece) { dropped?.add(Int64(count)) }
    // Only now: what is being written takes memory too.
    let bytes = piece.count
    state.withLock { $0.waitingBytes -= bytes }
    piece.removeAll(keepingCapacity: true)
    count = 0
  }

  /// False: nobody will ever read it.
  private func put(_ bytes: [UInt8]) -> Bool {
    var written = 0
    while written < bytes.count {
      guard Self.wait(descriptor, POLLOUT, milliseconds: Self.lookMilliseconds) else { continue }
      let count = bytes.withUnsafeBytes { all in
        Glibc.write(
          descriptor, all.baseAddress.map { $0 + written }, min(all.count - written, Self.mostBytesAtOnce))
      }
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count > 0 else { return false }
      written += count
    }
    return true
  }

  /// Whether one of `events`, or an error, is there in time.
  @discardableResult
  private static func wait(_ descriptor: CInt, _ events: CInt, milliseconds: CInt) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    return poll(&entry, 1, milliseconds) > 0
  }
}
