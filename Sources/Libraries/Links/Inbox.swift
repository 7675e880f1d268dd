// What is said to this worker over the rings of one kind: each ring's parts put together again, and every message handed on.
//
// Records are from other processes, which may be newer, or mad. So each has one of three outcomes: it is taken; it is of a type or kind
// that isn't known here, then it is counted and skipped; or no writer of any release writes such a thing, then its ring is corrupt,
// which is reported, and isn't read until the supervisor has formatted it anew. No length in a record is believed.

import IPC
import Kit

/// A message as it came.
public struct LinkMessage {
  /// Which of the inbox's rings it came by: who said it.
  public let ring: Int
  public let envelope: Envelope
  /// Valid during the call. nil: it is larger than this inbox takes, and what of it had come is gone.
  public let payload: UnsafeRawBufferPointer?

  /// What it is about; nil: it isn't as its format has it.
  public func decoded<Payload: LinkPayload>(_ type: Payload.Type = Payload.self) -> Payload? {
    guard let payload else { return nil }
    var fields = FieldReader(payload)
    return Payload(&fields)
  }
}

/// What became of a message.
public enum Reception: Equatable, Sendable {
  case taken
  /// Its kind isn't known here.
  case unknown
  /// None that its writer would send.
  case malformed
}

/// The reading end of links. Belongs to one event loop.
public final class Inbox {
  /// Records read per turn.
  public static let recordsPerTurn = 256

  /// A message of which more parts are to come.
  private struct Unfinished {
    let envelope: Envelope
    /// nil: it has become too large.
    var payload: [UInt8]?
    var offset: UInt32
  }

  public let rings: RingSet
  /// Of each ring, this worker's reader slot: messages for it have it as target.
  private let slots: [UInt16]
  private let maximumBytes: Int
  private var unfinished: [Unfinished?]

  /// - Parameters:
  ///   - grants: the rings, each granted for reading.
  ///   - maximumBytes: of a message in several parts; one in a single part is bounded by its ring.
  public init(grants: [RingGrant], maximumBytes: Int, status: StatusPage) throws(IPCError) {
    rings = try RingSet(grants: grants, status: status)
    slots = grants.map { UInt16(clamping: $0.readerSlot ?? 0) }
    self.maximumBytes = maximumBytes
    unfinished = Array(repeating: nil, count: grants.count)
  }

  /// Hands on what is said to this worker, up to the bound of a turn. Returns whether there may be more.
  @discardableResult
  public func serve(_ take: (LinkMessage) -> Reception) -> Bool {
    var records = 0
    let hasMore = rings.read { ring, record in
      records += 1
      read(record, of: ring, take)
      return records < Self.recordsPerTurn
    }
    rings.commit()
    return hasMore
  }

  private func read(_ record: RingRecord, of ring: Int, _ take: (LinkMessage) -> Reception) {
    guard record.type == Envelope.recordType else { return rings.skip(ring, type: record.type) }
    guard let target = EnvelopePart.target(of: record.bytes) else {
      return rings.suspend(ring, reason: "record \(record.sequence) is no message")
    }
    guard target == slots[ring] else { return }
    guard let (part, payload) = EnvelopePart.read(record.bytes),
      let reception = assemble(part, payload, ring, take)
    else { return rings.suspend(ring, reason: "record \(record.sequence) is no part of a message") }
    switch reception {
    case .taken: break
    case .unknown: rings.skip(ring, kind: part.envelope.kind.rawValue)
    case .malformed:
      rings.suspend(
        ring, reason: "record \(record.sequence) is no message of kind \(part.envelope.kind.rawValue) for this worker")
    }
  }

  /// nil: it doesn't belong to what came before. A part that begins a message ends an unfinished one: its writer has died over it.
  private func assemble(
    _ part: EnvelopePart, _ payload: UnsafeRawBufferPointer, _ ring: Int, _ take: (LinkMessage) -> Reception
  ) -> Reception? {
    if part.offset == 0 {
      unfinished[ring] = nil
      guard part.hasMore else {
        return take(LinkMessage(ring: ring, envelope: part.envelope, payload: payload))
      }
      unfinished[ring] = Unfinished(envelope: part.envelope, payload: [], offset: 0)
    }
    // Of a message whose beginning a predecessor of this worker has read nothing can be made.
    guard var message = unfinished[ring] else { return .taken }
    guard message.envelope == part.envelope, message.offset == part.offset, !payload.isEmpty,
      let end = UInt32(exactly: UInt64(part.offset) + UInt64(payload.count))
    else { return nil }
    unfinished[ring] = nil  // so that the payload is appended in place
    if Int(end) > maximumBytes { message.payload = nil } else { message.payload?.append(contentsOf: payload) }
    message.offset = end
    guard part.hasMore else {
      guard let whole = message.payload else {
        return take(LinkMessage(ring: ring, envelope: message.envelope, payload: nil))
      }
      return whole.withUnsafeBytes {
        take(LinkMessage(ring: ring, envelope: message.envelope, payload: $0))
      }
    }
    unfinished[ring] = message
    return .taken
  }
}
