// An event as it lies in a ring, looked at without copying. The layout is in EventLayout.
//
// Its writer may have gone mad: every length is loaded once, and added up to the record's before anything is
// followed. What is inside the users and fields is checked again at each step, so that bytes that change meanwhile
// lead to a shorter list and never outside of the record.

import IPC

/// A view of a record's bytes; valid as long as they are.
public struct EventRecord {
  public static let recordType: UInt16 = 1
  /// Record type of the gateway's own word that events are missing (`PreparedEvent.eventsLost`): it is for everybody. Releases that
  /// don't know it skip it.
  public static let gapRecordType: UInt16 = 2

  /// Whether a record of this type is an event, or a gap.
  public static func isEvent(_ recordType: UInt16) -> Bool {
    recordType == Self.recordType || recordType == gapRecordType
  }

  public let typeBytes: UnsafeRawBufferPointer
  /// The event as it goes out, one line of JSON.
  public let jsonBytes: UnsafeRawBufferPointer
  public let acceptedAtNs: UInt64
  /// After this moment the event is delivered to nobody; nil: it never expires.
  public let expiresAtUnixMs: Int64?
  private let bytes: UnsafeRawBufferPointer
  private let flags: UInt8
  private let userCount: Int
  private let fieldCount: Int
  private let logRange: Range<Int>
  /// Users and fields.
  private let listsRange: Range<Int>
  private let fieldsStart: Int

  /// Whether it says that events are missing at this place: it goes to everybody.
  public private(set) var isGap = false

  /// nil for other records, and for one that makes no sense.
  public init?(ring record: RingRecord) {
    guard Self.isEvent(record.type) else { return nil }
    self.init(record.bytes)
    isGap = record.type == Self.gapRecordType
  }

  /// nil if the bytes aren't exactly what the layout has.
  public init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= EventLayout.headerBytes, bytes[EventLayout.formatOffset] == EventLayout.format else {
      return nil
    }
    func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    flags = bytes[EventLayout.flagsOffset]
    let typeEnd = EventLayout.headerBytes + Int(load(UInt32.self, EventLayout.typeLengthOffset))
    let sourceEnd = typeEnd + Int(load(UInt32.self, EventLayout.sourceLengthOffset))
    let idEnd = sourceEnd + Int(load(UInt32.self, EventLayout.idLengthOffset))
    let traceparentEnd = idEnd + Int(load(UInt16.self, EventLayout.traceparentLengthOffset))
    let tracestateEnd = traceparentEnd + Int(load(UInt16.self, EventLayout.tracestateLengthOffset))
    let logEnd = tracestateEnd + Int(load(UInt16.self, EventLayout.logLengthOffset))
    let jsonLength = Int(load(UInt32.self, EventLayout.jsonLengthOffset))
    let jsonStart = bytes.count - jsonLength
    guard jsonStart >= logEnd else { return nil }
    userCount = Int(load(UInt16.self, EventLayout.userCountOffset))
    fieldCount = Int(load(UInt16.self, EventLayout.fieldCountOffset))
    logRange = tracestateEnd..<logEnd
    listsRange = logEnd..<jsonStart
    typeBytes = UnsafeRawBufferPointer(rebasing: bytes[EventLayout.headerBytes..<typeEnd])
    jsonBytes = UnsafeRawBufferPointer(rebasing: bytes[jsonStart...])
    acceptedAtNs = load(UInt64.self, EventLayout.acceptedOffset)
    let expires = load(Int64.self, EventLayout.expiresOffset)
    expiresAtUnixMs = flags & EventLayout.Flag.expires != 0 ? expires : nil
    self.bytes = bytes
    guard let fieldsStart = Self.endOfUsers(bytes, listsRange, userCount),
      let end = Self.endOfFields(bytes, fieldsStart..<jsonStart, fieldCount),
      end == jsonStart || Self.areFieldsOfLaterReleases(bytes[end..<jsonStart])
    else { return nil }
    self.fieldsStart = fieldsStart
  }

  private static func areFieldsOfLaterReleases(_ bytes: Slice<UnsafeRawBufferPointer>) -> Bool {
    FieldReader(UnsafeRawBufferPointer(rebasing: bytes)).isComplete
  }

  public static func fault(of record: RingRecord) -> RecordFault {
    guard isEvent(record.type) else { return .unknown(kind: "\(record.type)") }
    guard record.bytes.count >= EventLayout.headerBytes else { return .malformed }
    let format = record.bytes[EventLayout.formatOffset]
    return format == EventLayout.format ? .malformed : .version(format, of: "event")
  }

  /// When the event in a record was accepted, without a look at the rest of it; 0 for a record of another kind.
  public static func acceptedAtNs(of record: RingRecord) -> UInt64 {
    guard isEvent(record.type), record.bytes.count >= EventLayout.headerBytes else { return 0 }
    return UInt64(
      littleEndian: record.bytes.loadUnaligned(fromByteOffset: EventLayout.acceptedOffset, as: UInt64.self))
  }

  /// Whether it goes to users, and to nobody by its type.
  public var isAddressed: Bool { userCount > 0 }
  /// Whether it is a plain JSON object, no CloudEvent.
  public var isPlainMessage: Bool { flags & EventLayout.Flag.plainMessage != 0 }

  /// Where it came from; nil for events that came out of no log.
  public var origin: EventOrigin? {
    var log = UnsafeRawBufferPointer(rebasing: bytes[logRange])
    let source: EventOrigin.Source
    if flags & EventLayout.Flag.kafkaOrigin != 0 {
      source = .kafka
    } else if flags & EventLayout.Flag.otherOrigin != 0, log.count >= EventLayout.originSourceBytes {
      source = EventOrigin.Source(rawValue: UInt16(littleEndian: log.loadUnaligned(as: UInt16.self)))
      log = UnsafeRawBufferPointer(rebasing: log[EventLayout.originSourceBytes...])
    } else {
      return nil
    }
    let partition = bytes.loadUnaligned(fromByteOffset: EventLayout.partitionOffset, as: Int32.self)
    let offset = bytes.loadUnaligned(fromByteOffset: EventLayout.originOffsetOffset, as: Int64.self)
    return EventOrigin(
      source: source, topic: String(decoding: log, as: UTF8.self), partition: Int32(littleEndian: partition),
      offset: Int64(littleEndian: offset))
  }

  public func forEachUser(_ body: (UnsafeRawBufferPointer) -> Void) {
    var position = listsRange.lowerBound
    for _ in 0..<userCount {
      guard let (user, next) = Self.user(bytes, at: position, end: listsRange.upperBound) else { return }
      body(user)
      position = next
    }
  }

  /// The fields that extractors found: name, and value as `ScalarValue.encode` has it.
  @inline(__always)
  public func forEachField(_ body: (_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Void)
  {
    var position = fieldsStart
    for _ in 0..<fieldCount {
      guard let (name, value, next) = Self.field(bytes, at: position, end: listsRange.upperBound) else {
        return
      }
      body(name, value)
      position = next
    }
  }

  private static func endOfUsers(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, _ count: Int) -> Int? {
    var position = range.lowerBound
    for _ in 0..<count {
      guard let (_, next) = user(bytes, at: position, end: range.upperBound) else { return nil }
      position = next
    }
    return position
  }

  private static func endOfFields(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, _ count: Int) -> Int?
  {
    var position = range.lowerBound
    for _ in 0..<count {
      guard let (_, _, next) = field(bytes, at: position, end: range.upperBound) else { return nil }
      position = next
    }
    return position
  }

  private static func user(
    _ bytes: UnsafeRawBufferPointer, at position: Int, end: Int
  ) -> (UnsafeRawBufferPointer, next: Int)? {
    let start = position + EventLayout.userHeaderBytes
    guard start <= end else { return nil }
    let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
    guard length <= end - start else { return nil }
    return (UnsafeRawBufferPointer(rebasing: bytes[start..<start + length]), start + length)
  }

  @inline(__always)
  private static func field(
    _ bytes: UnsafeRawBufferPointer, at position: Int, end: Int
  ) -> (name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, next: Int)? {
    let start = position + EventLayout.fieldHeaderBytes
    guard start <= end else { return nil }
    let nameLength = Int(UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt16.self)))
    let valueLength = Int(
      UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position + 2, as: UInt32.self)))
    guard nameLength + valueLength <= end - start else { return nil }
    let valueStart = start + nameLength
    let next = valueStart + valueLength
    return (
      UnsafeRawBufferPointer(rebasing: bytes[start..<valueStart]),
      UnsafeRawBufferPointer(rebasing: bytes[valueStart..<next]), next
    )
  }
}

/// An event (record type 1) or a gap (2) as a record of an event ring, format 1, little endian:
///
///    0  format = 1, 1 byte   flags, 1   fields, 2 (number)         length of type, 4
///    8  accepted at, 8 bytes (ns of CLOCK_MONOTONIC)
///   16  expires at, 8 bytes (ms since 1970; only with flag 2)
///   24  length of source, 4       length of id, 4
///   32  lengths of traceparent, tracestate, log, 2 bytes each      users, 2 (number)
///   40  partition, 4              length of json, 4
///   48  offset, 8
///   56  type | source | id | traceparent | tracestate | log
///       users:   length, 4 | name             … one after the other
///       fields:  length of name, 2 | length of value, 4 | name | value as ScalarValue encodes it
///       fields of later releases (FieldCoding): passed over
///       json
///
///   log, partition and offset are the origin: with flag 4 in Kafka, and log is the topic; with flag 8 log begins with the kind of
///   source, 2 bytes (EventOrigin.Source), and the topic follows. Releases that don't know flag 8 see no origin.
///
///   flags: 1 plain message, 2 expires, 4 came from Kafka, 8 came from another source; others are of later releases and passed over
enum EventLayout {
  static let format: UInt8 = 1
  static let headerBytes = 56

  enum Flag {
    static let plainMessage: UInt8 = 1
    static let expires: UInt8 = 2
    static let kafkaOrigin: UInt8 = 4
    static let otherOrigin: UInt8 = 8
  }

  static let formatOffset = 0
  static let flagsOffset = 1
  static let fieldCountOffset = 2
  static let typeLengthOffset = 4
  static let acceptedOffset = 8
  static let expiresOffset = 16
  static let sourceLengthOffset = 24
  static let idLengthOffset = 28
  static let traceparentLengthOffset = 32
  static let tracestateLengthOffset = 34
  static let logLengthOffset = 36
  static let userCountOffset = 38
  static let partitionOffset = 40
  static let jsonLengthOffset = 44
  static let originOffsetOffset = 48
  static let originSourceBytes = 2

  static let userHeaderBytes = 4
  static let fieldHeaderBytes = 6
}
