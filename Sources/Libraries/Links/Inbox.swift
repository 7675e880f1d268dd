// What is said to this worker over the rings of one kind: each ring's parts put together again, and every message handed on.
//
// Records are from other processes, which may be newer, or mad. So each has one of three outcomes: it is taken; it is of a type or kind
// that isn't known here, then it is counted and skipped; or no writer of any release writes such a thing, then its ring is corrupt,
// which is reported, and isn't read until the supervisor has formatted it anew. No length in a record is believed.

import IPC
import Kit

public struct LinkMessage {
  /// Which of the inbox's rings it came by: who said it.
  public let ring: Int
  public let envelope: Envelope
  /// Valid during the call. nil: it is larger than this inbox takes, and what of it had come is gone.
  public let payload: UnsafeRawBufferPointer?

  /// What it is about.
  ///
  /// - Throws: of one that is too large `.unknown`: another release may have a larger bound, or have been given one.
  @inlinable
  public func decoded<Payload: LinkPayload>(
    as type: Payload.Type = Payload.self
  ) throws(RecordFault) -> Payload {
    guard let payload else { throw .unknown(kind: "message.\(envelope.kind.rawValue) of too many bytes") }
    var fields = FieldReader(payload)
    let decoded = try Payload(envelope, &fields)
    guard fields.isComplete else { throw .malformed }
    return decoded
  }
}

/// The reading end of links. Belongs to one event loop.
public final class Inbox {
  /// A message of which more parts are to come.
  private struct Unfinished {
    let envelope: Envelope
    /// nil: it has become too large.
    var payload: [UInt8]?
    var offset: UInt32
  }

  public let rings: RingSet
  private let maximumBytes: Int
  private var unfinished: [Unfinished?]

  /// - Parameter maximumBytes: of a message in several parts; one in a single part is bounded by its ring.
  public init(_ rings: RingSet, maximumBytes: Int) {
    self.rings = rings
    self.maximumBytes = maximumBytes
    unfinished = Array(repeating: nil, count: rings.count)
  }

  /// Hands on what is said to this worker, up to the bound of a turn. Returns whether there may be more.
  ///
  /// - Parameter take: throws what is wrong with a message that can't be taken.
  @discardableResult
  public func serve(_ take: (LinkMessage) throws(RecordFault) -> Void) -> Bool {
    let hasMore = rings.read(atMost: RingSet.recordsPerTurn) { ring, record in read(record, of: ring, take) }
    rings.commit()
    return hasMore
  }

  private func read(
    _ record: RingRecord, of ring: Int, _ take: (LinkMessage) throws(RecordFault) -> Void
  ) {
    guard record.type == Envelope.recordType else { return rings.passOver(ring, record) }
    do throws(RecordFault) {
      let target = try EnvelopePart.target(of: record.bytes)
      guard target == rings.slot(ring) else { return }
      let (part, payload) = try EnvelopePart.read(record.bytes)
      try assemble(part, payload, ring, take)
    } catch {
      rings.refuse(ring, record, error, expected: "message for this worker")
    }
  }

  /// A part that begins a message ends an unfinished one: its writer has died over it.
  private func assemble(
    _ part: EnvelopePart, _ payload: UnsafeRawBufferPointer, _ ring: Int,
    _ take: (LinkMessage) throws(RecordFault) -> Void
  ) throws(RecordFault) {
    if part.offset == 0 {
      unfinished[ring] = nil
      guard part.hasMore else {
        return try take(LinkMessage(ring: ring, envelope: part.envelope, payload: payload))
      }
      unfinished[ring] = Unfinished(envelope: part.envelope, payload: [], offset: 0)
    }
    // Of a message whose beginning a predecessor of this worker has read nothing can be made.
    guard var message = unfinished[ring] else { return }
    guard message.envelope == part.envelope, message.offset == part.offset, !payload.isEmpty,
      let end = UInt32(exactly: UInt64(part.offset) + UInt64(payload.count))
    else { throw .malformed }
    unfinished[ring] = nil  // so that the payload is appended in place
    if Int(end) > maximumBytes { message.payload = nil } else { message.payload?.append(contentsOf: payload) }
    message.offset = end
    guard !part.hasMore else {
      unfinished[ring] = message
      return
    }
    guard let whole = message.payload else {
      return try take(LinkMessage(ring: ring, envelope: message.envelope, payload: nil))
    }
    let taken = whole.withUnsafeBytes { bytes in
      Result { () throws(RecordFault) in
        try take(LinkMessage(ring: ring, envelope: message.envelope, payload: bytes))
      }
    }
    try taken.get()
  }
}

/// Belongs to one event loop.
public final class LoopRings {
  private let sets: [RingSet]

  public init(_ sets: [RingSet]) { self.sets = sets }

  /// A turn begins: writers need not wake this worker.
  public func declareAwake() {
    for set in sets { set.declareAwake() }
  }

  /// This worker is about to wait; false if there is something to read in any ring: it doesn't wait, and is awake.
  public func declareAsleep() -> Bool {
    guard sets.allSatisfy({ $0.declareAsleep() }) else {
      declareAwake()
      return false
    }
    return true
  }

  /// What has happened to rings since it was last asked for.
  public func takeIncidents() -> [RingIncident] { sets.flatMap { $0.takeIncidents() } }

  /// Whoever is watched has it noted which record is worked on.
  public func watch(_ watch: RecordWatch) {
    for set in sets { set.watch = watch }
  }

  /// Once per second.
  public func probeSuspended() {
    for set in sets { set.probeSuspended() }
  }
}
