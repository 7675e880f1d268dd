// Messages on their way into a ring that may be full: they wait here in order, bounded in bytes, and nothing overtakes them.

import DequeModule
import IPC
import Kit

/// The writing end of links. Belongs to one event loop.
public final class Outbox {
  public enum Refusal: Error, Equatable {
    /// The ring is full, and as much waits for it as may.
    case noRoom
    /// Of a message.
    case tooLarge(limitBytes: Int)
  }

  /// Bytes of one part of a stream at most.
  private static let streamPartBytes = 64 << 10
  /// Most messages aren't larger.
  private static let usualBytes = 512

  private struct Record {
    let target: Int
    let bytes: [UInt8]

    init(for target: UInt16, length: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) {
      self.target = Int(target)
      bytes = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
        fill(UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<length]))
        count = length
      }
    }
  }

  private let writer: RingWriter
  private let maximumBytes: Int
  private let maximumMessageBytes: Int
  private var waiting = Deque<Record>()
  private var waitingBytes = 0
  /// Calls a closure after a moment, about a millisecond: a ring says nothing when it gets room.
  private let later: (@escaping () -> Void) -> Void
  private var isRetryComing = false
  /// Called when nothing waits any more.
  public var onDrained: (() -> Void)?

  /// - Parameters:
  ///   - maximumMessageBytes: of a message, as its readers take it.
  ///   - maximumBytes: of what waits for room; two of the largest messages find room in any case.
  ///   - later: calls a closure after a moment, on the same thread.
  public init(
    _ writer: RingWriter, maximumMessageBytes: Int, maximumBytes: Int,
    later: @escaping (@escaping () -> Void) -> Void
  ) {
    self.writer = writer
    self.maximumMessageBytes = maximumMessageBytes
    self.maximumBytes = max(maximumBytes, 2 * maximumMessageBytes)
    self.later = later
  }

  /// The largest payload that goes in one part.
  public var partBytes: Int { max(1, writer.maximumPayload - Envelope.byteCount) }

  /// Whether messages wait for room: whoever can should send no more until `onDrained`.
  public var isBlocked: Bool { !waiting.isEmpty }

  /// Sends a message, now or when there is room. What is refused isn't sent in part either.
  @inlinable
  public func send(
    _ payload: some LinkPayload, to target: UInt16, _ correlation: UInt64, deadlineNs: UInt64 = 0
  ) throws(Refusal) {
    var fields = Self.fields()
    payload.append(to: &fields)
    try send(
      consume fields,
      Envelope(
        payload.kind, target: target, correlation: correlation, deadlineNs: deadlineNs, value: payload.value))
  }

  /// Room for an envelope, and fields behind it.
  @usableFromInline
  static func fields() -> FieldWriter { FieldWriter(prefix: Envelope.byteCount, capacity: usualBytes) }

  @usableFromInline
  func send(_ fields: consuming FieldWriter, _ envelope: Envelope) throws(Refusal) {
    let bytes = fields.bytes { EnvelopePart(envelope).write(to: $0) }
    let payloadBytes = bytes.count - Envelope.byteCount
    guard payloadBytes <= max(maximumMessageBytes, partBytes) else {
      throw .tooLarge(limitBytes: maximumMessageBytes)
    }
    guard payloadBytes > partBytes else {
      guard put(bytes.count, for: envelope.target, { $0.copyBytes(from: bytes) }) else { throw .noRoom }
      return
    }
    guard wait(Self.parts(envelope, bytes[Envelope.byteCount...], room: partBytes)) else { throw .noRoom }
  }

  /// Sends a stretch of a stream, in as many messages as it takes, each whole in itself. False: there is no room; what was sent of it is
  /// sent.
  public func stream(_ bytes: UnsafeRawBufferPointer, _ envelope: Envelope) -> Bool {
    let most = min(Self.streamPartBytes, partBytes)
    let part = EnvelopePart(envelope)
    var start = 0
    while start < bytes.count {
      let end = min(bytes.count, start + most)
      let stretch = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
      let isPut = put(Envelope.byteCount + stretch.count, for: envelope.target, isFollowed: end < bytes.count)
      {
        part.write(to: $0)
        UnsafeMutableRawBufferPointer(rebasing: $0[Envelope.byteCount...]).copyMemory(from: stretch)
      }
      guard isPut else { return false }
      start = end
    }
    return true
  }

  private static func parts(_ envelope: Envelope, _ payload: ArraySlice<UInt8>, room: Int) -> [Record] {
    stride(from: payload.startIndex, to: payload.endIndex, by: room).map { start in
      let end = min(payload.endIndex, start + room)
      let part = EnvelopePart(
        envelope, offset: UInt32(clamping: start - payload.startIndex), hasMore: end < payload.endIndex)
      return Record(for: envelope.target, length: Envelope.byteCount + end - start) {
        part.write(to: $0)
        UnsafeMutableRawBufferPointer(rebasing: $0[Envelope.byteCount...]).copyBytes(
          from: payload[start..<end])
      }
    }
  }

  /// Puts a record straight into the ring if nothing waits before it, and else behind those that wait.
  ///
  /// - Parameter isFollowed: another for the same target comes at once: the reader sees both together, and is woken once.
  private func put(
    _ length: Int, for target: UInt16, isFollowed: Bool = false,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) -> Bool {
    guard length <= writer.maximumPayload else { return false }
    if waiting.isEmpty, case .appended = writer.append(type: Envelope.recordType, length: length, fill) {
      if !isFollowed { writer.publish(waking: .only(Int(target))) }
      return true
    }
    // What was to be seen together with this one isn't to wait with it.
    writer.publish(waking: .only(Int(target)))
    return wait([Record(for: target, length: length, fill)])
  }

  /// Puts records behind those that wait, and sends what there is room for.
  private func wait(_ records: [Record]) -> Bool {
    let bytes = records.reduce(0) { $0 + $1.bytes.count }
    guard bytes <= maximumBytes - waitingBytes else { return false }
    waiting.append(contentsOf: records)
    waitingBytes += bytes
    flush()
    return true
  }

  public func flush() {
    guard !waiting.isEmpty else { return }
    var targets: ReaderSet = []
    while let record = waiting.first, append(record) {
      waiting.removeFirst()
      waitingBytes -= record.bytes.count
      targets.formUnion(.only(record.target))
    }
    if targets != [] { writer.publish(waking: targets) }
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

  private func append(_ record: Record) -> Bool {
    let appended = writer.append(type: Envelope.recordType, length: record.bytes.count) {
      $0.copyBytes(from: record.bytes)
    }
    guard case .appended = appended else { return false }
    return true
  }
}
