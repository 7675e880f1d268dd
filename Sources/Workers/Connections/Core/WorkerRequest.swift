// What connection workers ask each other: a client's PUT or poll may come in at any worker, and its connection live in
// another. One record of a request ring (record type 2) is one message, little endian:
//
//    0  version = 1, 1 byte   kind, 1 byte   target's place, 2 bytes   status, 2 bytes   flags, 2 bytes
//    8  correlation, 8 bytes
//   16  serial of the connection; of an answer the offset of its part; a key, 8 bytes
//   24  length of text, 4 bytes   length of body, 4 bytes
//   32  text (UTF-8) | body, or a time, 8 bytes | fields of later releases (FieldCoding)
//
// Who sent it is known by the ring it came through. The other worker may have gone mad: nothing in a record is
// trusted. Flags and fields that another release may have added are passed over (RecordFault).

import Kit

/// A message to the connection worker `target`.
struct WorkerRequest: Equatable, Sendable {
  /// Record type in the request rings.
  static let recordType: UInt16 = 2

  enum Message: Equatable, Sendable {
    /// Change connection `serial`. `change`: as `SubscriptionChange` encodes it, already accepted by the asking worker.
    case setSubscriptions(serial: UInt64, change: [UInt8])
    /// A poll of long-polling connection `serial`. `shown`: of its tokens, already verified by the asking worker.
    case poll(serial: UInt64, lastEventID: String?, shown: [Credential] = [])
    /// The client of the poll with this correlation has gone.
    case cancelPoll(serial: UInt64)
    /// There is one connection too many with this key of `ConnectionLimits`, and the oldest is the target's: it goes if it was
    /// opened before `since`, in ms. Nobody waits for an answer.
    case closeOldest(key: UInt64, since: UInt64)
    /// The answer to a message of `target`, or one part of it.
    case answer(WorkerAnswer)
  }

  /// Place of the worker it is for; the others skip the record.
  let target: UInt16
  /// Joins an answer to its question; of the asker's choosing.
  let correlation: UInt64
  let message: Message
}

/// What came of a request, as HTTP says it.
struct WorkerAnswer: Equatable, Sendable {
  /// 204 subscriptions replaced, 200 poll answered, 410 no such connection (any more), 4xx/5xx otherwise.
  var status: UInt16
  /// For 200 the `last_event_id`; otherwise the problem's detail.
  var text: String
  /// For 200 the poll's body.
  var body: [UInt8] = []
  /// Where the body of this part begins in the whole: a part whose predecessor was lost is known by it.
  var offset = 0
  /// Whether more parts follow; their bodies belong one behind the other.
  var hasMore = false

  /// In parts whose records fit a ring with the given limit per record (`RingWriter.maximumPayload`).
  func parts(maximumRecordBytes: Int) -> [WorkerAnswer] {
    let room = max(1, maximumRecordBytes - WorkerRequest.headerBytes - text.utf8.count)
    guard body.count > room else { return [self] }
    return stride(from: 0, to: body.count, by: room).map { start in
      let end = min(start + room, body.count)
      return WorkerAnswer(
        status: status, text: text, body: Array(body[start..<end]), offset: start, hasMore: end < body.count)
    }
  }
}

// MARK: Wire format

extension WorkerRequest {
  static let headerBytes = 32
  private static let version: UInt8 = 1

  private enum Kind: UInt8 {
    case setSubscriptions = 1
    case poll = 2
    case cancelPoll = 3
    case answer = 4
    case closeOldest = 5
  }

  private struct Flags: OptionSet {
    let rawValue: UInt16
    static let hasText = Flags(rawValue: 1)
    static let hasMore = Flags(rawValue: 2)
    static let known: Flags = [.hasText, .hasMore]
  }

  /// The message in the fields of the wire format.
  private var fields: (kind: Kind, serial: UInt64, status: UInt16, flags: Flags, text: String, body: [UInt8])
  {
    switch message {
    case .setSubscriptions(let serial, let change): (.setSubscriptions, serial, 0, [], "", change)
    case .poll(let serial, let id, let shown):
      (.poll, serial, 0, id == nil ? [] : .hasText, id ?? "", Self.encode(shown))
    case .cancelPoll(let serial): (.cancelPoll, serial, 0, [], "", [])
    case .closeOldest(let key, let since):
      (.closeOldest, key, 0, [], "", withUnsafeBytes(of: since.littleEndian) { Array($0) })
    case .answer(let answer):
      (
        .answer, UInt64(clamping: answer.offset), answer.status, answer.hasMore ? .hasMore : [], answer.text,
        answer.body
      )
    }
  }

  /// None take no bytes.
  private static func encode(_ credentials: [Credential]) -> [UInt8] {
    guard !credentials.isEmpty else { return [] }
    var fields = FieldWriter()
    Credential.encode(credentials, into: &fields)
    return fields.bytes
  }

  /// nil if they aren't any.
  private static func credentials(_ bytes: [UInt8]) -> [Credential]? {
    guard !bytes.isEmpty else { return [] }
    return bytes.withUnsafeBytes { bytes in
      var fields = FieldReader(bytes)
      let credentials = Credential.decodeList(&fields)
      return fields.isComplete && credentials?.isEmpty == false ? credentials : nil
    }
  }

  /// Bytes of the record.
  var encodedLength: Int {
    let fields = fields
    return Self.headerBytes + fields.text.utf8.count + fields.body.count
  }

  /// Writes the record to the beginning of `buffer`, which must have `encodedLength` bytes.
  func encode(into buffer: UnsafeMutableRawBufferPointer) {
    let fields = fields
    func store(_ value: some FixedWidthInteger, at offset: Int) {
      withUnsafeBytes(of: value.littleEndian) { bytes in
        UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<offset + bytes.count]).copyMemory(from: bytes)
      }
    }
    store(Self.version, at: 0)
    store(fields.kind.rawValue, at: 1)
    store(target, at: 2)
    store(fields.status, at: 4)
    store(fields.flags.rawValue, at: 6)
    store(correlation, at: 8)
    store(fields.serial, at: 16)
    store(UInt32(fields.text.utf8.count), at: 24)
    store(UInt32(fields.body.count), at: 28)
    let textEnd = Self.headerBytes + fields.text.utf8.count
    UnsafeMutableRawBufferPointer(rebasing: buffer[Self.headerBytes..<textEnd]).copyBytes(
      from: fields.text.utf8)
    UnsafeMutableRawBufferPointer(rebasing: buffer[textEnd..<textEnd + fields.body.count]).copyBytes(
      from: fields.body)
  }

  /// The target of a record, without looking at the rest: most records that a worker sees aren't for it.
  static func target(of bytes: UnsafeRawBufferPointer) -> UInt16? {
    guard bytes.count >= headerBytes else { return nil }
    return UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
  }

  /// Decodes a record.
  ///
  /// - Throws: what is wrong with one that isn't as this format has it.
  init(_ bytes: UnsafeRawBufferPointer) throws(RecordFault) {
    guard bytes.count >= Self.headerBytes else { throw .malformed }
    func load<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    guard bytes[0] == Self.version else { throw .version(bytes[0], of: "request") }
    guard let kind = Kind(rawValue: bytes[1]) else { throw .unknown(kind: "request.\(bytes[1])") }
    let textEnd = Self.headerBytes + Int(load(UInt32.self, at: 24))
    let bodyEnd = textEnd + Int(load(UInt32.self, at: 28))
    guard bodyEnd <= bytes.count,
      FieldReader(UnsafeRawBufferPointer(rebasing: bytes[bodyEnd...])).isComplete,
      let text = String(validating: bytes[Self.headerBytes..<textEnd], as: UTF8.self),
      let message = Self.message(
        kind, serial: load(UInt64.self, at: 16), status: load(UInt16.self, at: 4),
        Flags(rawValue: load(UInt16.self, at: 6)).intersection(.known), text, Array(bytes[textEnd..<bodyEnd]))
    else { throw .malformed }
    self.message = message
    target = load(UInt16.self, at: 2)
    correlation = load(UInt64.self, at: 8)
  }

  /// nil: malformed.
  private static func message(
    _ kind: Kind, serial: UInt64, status: UInt16, _ flags: Flags, _ text: String, _ body: [UInt8]
  ) -> Message? {
    switch kind {
    case .setSubscriptions:
      guard text.isEmpty, status == 0, flags.isEmpty else { return nil }
      return .setSubscriptions(serial: serial, change: body)
    case .poll:
      let hasText = flags.contains(.hasText)
      guard status == 0, hasText || text.isEmpty, !flags.contains(.hasMore), let shown = credentials(body)
      else { return nil }
      return .poll(serial: serial, lastEventID: hasText ? text : nil, shown: shown)
    case .cancelPoll:
      guard text.isEmpty, body.isEmpty, status == 0, flags.isEmpty else { return nil }
      return .cancelPoll(serial: serial)
    case .closeOldest:
      guard text.isEmpty, body.count == MemoryLayout<UInt64>.size, status == 0, flags.isEmpty else {
        return nil
      }
      let since = body.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
      return .closeOldest(key: serial, since: since)
    case .answer:
      guard let offset = Int(exactly: serial), (100...599).contains(status), !flags.contains(.hasText) else {
        return nil
      }
      return .answer(
        WorkerAnswer(
          status: status, text: text, body: body, offset: offset, hasMore: flags.contains(.hasMore)))
    }
  }
}
