// What workers say to each other stands in rings as messages of one form, whatever they are about. A message is an envelope and a
// payload; one that is larger than a record of its ring goes in parts, one behind the other. One record (type 20) is one part,
// little endian:
//
//    0  bytes of the envelope = 32, 1 byte   flags, 1 byte   target slot, 2 bytes
//    4  kind of the payload, 2 bytes   0, 2 bytes
//    8  correlation, 8 bytes
//   16  deadline, 8 bytes
//   24  offset of this part in the payload, 4 bytes   value, 4 bytes
//   32  part
//
// Flag 1: more parts follow. A newer release may have a longer envelope, whose rest is skipped, and flags that aren't known here and
// mean nothing here. A writer never begins a message before the one before it is complete: a reader holds at most one unfinished
// message of each ring.

import Kit

/// What a payload is. Numbers are for ever, and new ones come behind the others.
public struct PayloadKind: Hashable, Sendable {
  public let rawValue: UInt16

  public init(_ rawValue: UInt16) { self.rawValue = rawValue }

  // Every kind of payload there is, in any conversation. Numbers are for ever: what is gone leaves its number unused.

  // Between connection workers (requests).
  public static let setSubscriptions = PayloadKind(1)
  public static let poll = PayloadKind(2)
  public static let cancelPoll = PayloadKind(3)
  public static let closeOldest = PayloadKind(4)
  public static let workerAnswer = PayloadKind(5)
  public static let workerBegan = PayloadKind(6)

  // Calls of services, and what came of them (calls, answers). 16 had fields as strings.
  public static let cancelCall = PayloadKind(17)
  public static let callOutcome = PayloadKind(18)
  public static let call = PayloadKind(19)

  // Proxied requests (calls, answers). 32, 34, 37, 38 and 41 had fields as lists of strings.
  public static let body = PayloadKind(33)
  public static let cancelExchange = PayloadKind(35)
  public static let credit = PayloadKind(36)
  public static let failed = PayloadKind(39)
  public static let limited = PayloadKind(40)
  public static let count = PayloadKind(42)
  public static let admitted = PayloadKind(43)
  public static let open = PayloadKind(44)
  public static let end = PayloadKind(45)
  public static let informed = PayloadKind(46)
  public static let answered = PayloadKind(47)
  public static let upgraded = PayloadKind(48)
  public static let responded = PayloadKind(49)

  // Records for Kafka, responses of services, questions about sessions (publications, responses). 66 and 69 had fields as lists of
  // strings.
  public static let publication = PayloadKind(64)
  public static let publicationOutcome = PayloadKind(65)
  public static let responseTaken = PayloadKind(67)
  public static let question = PayloadKind(68)
  public static let response = PayloadKind(70)
  public static let questionAnswer = PayloadKind(71)
}

/// For whom a message is, and what it belongs to.
public struct Envelope: Equatable, Sendable {
  /// Type of its records.
  public static let recordType: UInt16 = 20
  static let byteCount = 32

  public var kind: PayloadKind
  /// Slot of the reader that it is for; the others skip it.
  public var target: UInt16
  /// Joins an answer to what was asked, and the messages of a conversation; of the asker's choosing.
  public var correlation: UInt64
  /// Of CLOCK_MONOTONIC in ns: nobody waits for an answer afterwards. 0: there is none.
  public var deadlineNs: UInt64
  /// A number of the payload that stands here so that the smallest messages need no payload.
  public var value: UInt32

  public init(
    _ kind: PayloadKind, target: UInt16, correlation: UInt64, deadlineNs: UInt64 = 0, value: UInt32 = 0
  ) {
    self.kind = kind
    self.target = target
    self.correlation = correlation
    self.deadlineNs = deadlineNs
    self.value = value
  }
}

struct EnvelopePart: Equatable {
  private enum Flag {
    static let hasMore: UInt8 = 1
  }

  var envelope: Envelope
  var offset: UInt32
  var hasMore: Bool

  init(_ envelope: Envelope, offset: UInt32 = 0, hasMore: Bool = false) {
    self.envelope = envelope
    self.offset = offset
    self.hasMore = hasMore
  }

  /// The target of a record, without looking at the rest: most of what a worker sees isn't for it.
  static func target(of record: UnsafeRawBufferPointer) throws(RecordFault) -> UInt16 {
    guard record.count >= Envelope.byteCount else { throw .malformed }
    return UInt16(littleEndian: record.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
  }

  static func read(
    _ record: UnsafeRawBufferPointer
  ) throws(RecordFault) -> (part: EnvelopePart, payload: UnsafeRawBufferPointer) {
    guard record.count >= Envelope.byteCount, Int(record[0]) >= Envelope.byteCount,
      Int(record[0]) <= record.count
    else { throw .malformed }
    func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
      T(littleEndian: record.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    let envelope = Envelope(
      PayloadKind(load(UInt16.self, 4)), target: load(UInt16.self, 2), correlation: load(UInt64.self, 8),
      deadlineNs: load(UInt64.self, 16), value: load(UInt32.self, 28))
    let part = EnvelopePart(
      envelope, offset: load(UInt32.self, 24), hasMore: record[1] & Flag.hasMore != 0)
    return (part, UnsafeRawBufferPointer(rebasing: record[Int(record[0])...]))
  }

  /// Writes it to the beginning of `buffer`, which has room for it.
  func write(to buffer: UnsafeMutableRawBufferPointer) {
    func store<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
      buffer.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }
    store(UInt8(Envelope.byteCount), 0)
    store(hasMore ? Flag.hasMore : 0, 1)
    store(envelope.target, 2)
    store(envelope.kind.rawValue, 4)
    store(UInt16(0), 6)
    store(envelope.correlation, 8)
    store(envelope.deadlineNs, 16)
    store(offset, 24)
    store(envelope.value, 28)
  }
}

/// What messages of a conversation are about, in fields (FieldCoding): a newer release may add to them.
public protocol LinkPayload: Sendable {
  var kind: PayloadKind { get }
  var value: UInt32 { get }
  func append(to fields: inout FieldWriter)
  /// - Throws: `.unknown` for a kind that the conversation doesn't have, `.malformed` for what no release would write.
  init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault)
}

extension LinkPayload {
  public var value: UInt32 { 0 }
}

extension Envelope {
  /// What is wrong with a message whose kind isn't known here.
  public var unknownKind: RecordFault { .unknown(kind: "message.\(kind.rawValue)") }
}

/// Names what a worker has begun among all that it and its predecessors have: the upper bits are the worker's generation, so that what
/// a predecessor has begun is known for it.
public enum Correlation {
  private static let countBits: UInt64 = 40

  /// The first of a worker with that generation of its status page.
  public static func first(generation: UInt64) -> UInt64 { (generation << countBits) | 1 }

  /// Whether a worker of that generation may have chosen `correlation`.
  public static func isOf(generation: UInt64, _ correlation: UInt64) -> Bool {
    correlation >> countBits == (generation << countBits) >> countBits
  }
}
