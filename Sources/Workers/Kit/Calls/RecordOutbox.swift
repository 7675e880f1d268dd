// Records on their way into a ring that may be full: they wait here in order, bounded in bytes, and nothing overtakes them.

import DequeModule
import IPC

/// A record that is encoded already.
public struct OutboxRecord: Equatable, Sendable {
  public var type: UInt16
  /// Reader slot that is woken for it.
  public var target: Int
  public var bytes: [UInt8]

  public init(type: UInt16, target: Int, bytes: [UInt8]) {
    self.type = type
    self.target = target
    self.bytes = bytes
  }
}

public final class RecordOutbox {
  private let writer: RingWriter
  private let maximumBytes: Int
  private var waiting = Deque<OutboxRecord>()
  private var waitingBytes = 0
  /// Calls a closure after a moment, about a millisecond: a ring says nothing when it gets room.
  private let later: (@escaping () -> Void) -> Void
  private var isRetryComing = false
  /// Called when nothing waits any more.
  public var onDrained: (() -> Void)?

  /// - Parameters:
  ///   - maximumBytes: of the records that wait.
  ///   - later: calls a closure after a moment, on the same thread.
  public init(
    _ writer: RingWriter, maximumBytes: Int, later: @escaping (@escaping () -> Void) -> Void
  ) {
    self.writer = writer
    self.maximumBytes = maximumBytes
    self.later = later
  }

  /// The largest record.
  public var maximumPayload: Int { writer.maximumPayload }

  /// Whether records wait for room: whoever can should send no more until `onDrained`.
  public var isBlocked: Bool { !waiting.isEmpty }

  /// Sends all records, now or when there is room; false: there is no room for them to wait in, and none is sent.
  public func send(_ records: [CallRecord]) -> Bool {
    send(records.map { OutboxRecord(type: $0.type, target: Int($0.target), bytes: $0.encoded) })
  }

  /// The same for records that are encoded already; none of them is larger than `maximumPayload`.
  public func send(_ records: [OutboxRecord]) -> Bool {
    let bytes = records.reduce(0) { $0 + $1.bytes.count }
    guard bytes <= maximumBytes - waitingBytes else { return false }
    waiting.append(contentsOf: records)
    waitingBytes += bytes
    flush()
    return true
  }

  /// Sends one record, now or when there is room; false: there is no room for it to wait in, or it is too large for the ring.
  ///
  /// - Parameters:
  ///   - isFollowed: another for the same target comes at once: the reader sees both together, and is woken once.
  ///   - fill: writes all `length` bytes.
  public func send(
    type: UInt16, target: UInt16, length: Int, isFollowed: Bool = false,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) -> Bool {
    guard length <= maximumPayload else { return false }
    if waiting.isEmpty, case .appended = writer.append(type: type, length: length, fill) {
      if !isFollowed { writer.publish(waking: .only(Int(target))) }
      return true
    }
    // What was to be seen together with this one isn't to wait with it.
    writer.publish(waking: .only(Int(target)))
    guard length <= maximumBytes - waitingBytes else { return false }
    let bytes = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
      fill(UnsafeMutableRawBufferPointer(buffer))
      count = length
    }
    waiting.append(OutboxRecord(type: type, target: Int(target), bytes: bytes))
    waitingBytes += length
    flush()
    return true
  }

  /// Sends what there is room for by now.
  public func flush() {
    guard !waiting.isEmpty else { return }
    var targets: ReaderSet = []
    var hasAppended = false
    while let record = waiting.first {
      let appended = writer.append(type: record.type, length: record.bytes.count) {
        $0.copyBytes(from: record.bytes)
      }
      if case .full = appended { break }
      waiting.removeFirst()
      waitingBytes -= record.bytes.count
      guard case .appended = appended else { continue }
      targets.formUnion(.only(record.target))
      hasAppended = true
    }
    if hasAppended { writer.publish(waking: targets) }
    guard !waiting.isEmpty else {
      onDrained?()
      return
    }
    guard !isRetryComing else { return }
    isRetryComing = true
    later { [weak self] in
      self?.isRetryComing = false
      self?.flush()
    }
  }
}
