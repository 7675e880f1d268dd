// Messages between workers that may be larger than a record of their ring: each goes in as many records as it takes, one behind
// the other. One record of a publication ring (type 9) or a response ring (type 10) is one part, little endian:
//
//    0  version = 1, 1 byte   kind, 1 byte   target slot, 2 bytes   bytes of the whole message, 4 bytes
//    8  correlation, 8 bytes
//   16  offset of this part, 4 bytes   flags, 4 bytes (none yet; those of other releases are passed over)
//   24  part
//
// A writer never begins a message before the one before it is complete, so a reader holds at most one unfinished message per ring.
// Records are from another process: no length in them is believed. What another release may have added is passed over (RecordFault).

/// Takes messages apart for a ring.
public enum PartedMessage {
  /// Record types: what a connection worker says, and what is said to it.
  public static let publicationType: UInt16 = 9
  public static let responseType: UInt16 = 10
  static let headerBytes = 24
  static let version: UInt8 = 1

  public enum Kind: UInt8, Sendable {
    /// A record for Kafka; to the streams worker.
    case publication = 1
    /// What came of one.
    case published
    /// A service's answer to a request that waits for it.
    case response
    /// What came of one; to the control worker.
    case taken
    /// A question about sessions; to the control worker.
    case question
    /// What is said to one.
    case answer
  }

  /// Which reader a message is for, and what it answers or will be answered by.
  public struct Address: Equatable, Sendable {
    public var kind: Kind
    /// Reader slot; the others skip the record.
    public var target: UInt16
    public var correlation: UInt64

    public init(_ kind: Kind, target: UInt16, correlation: UInt64) {
      self.kind = kind
      self.target = target
      self.correlation = correlation
    }
  }

  /// The message in records of at most `maximumBytes`, in order.
  public static func records(
    _ address: Address, _ message: [UInt8], maximumBytes: Int
  ) -> [OutboxRecord] {
    let isFromClients = [.publication, .taken, .question].contains(address.kind)
    let room = max(1, maximumBytes - headerBytes)
    var records: [OutboxRecord] = []
    var start = 0
    repeat {
      let end = min(message.count, start + room)
      var fields = FieldWriter()
      fields.append(version)
      fields.append(address.kind.rawValue)
      fields.append(address.target)
      fields.append(UInt32(clamping: message.count))
      fields.append(address.correlation)
      fields.append(UInt32(clamping: start))
      fields.append(UInt32(0))
      records.append(
        OutboxRecord(
          type: isFromClients ? publicationType : responseType, target: Int(address.target),
          bytes: fields.bytes + message[start..<end]))
      start = end
    } while start < message.count
    return records
  }

  /// The target of a record, without looking at the rest.
  public static func target(of bytes: UnsafeRawBufferPointer) -> UInt16? {
    guard bytes.count >= headerBytes else { return nil }
    return UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
  }

  /// Bytes of the largest message under these bounds of bodies and heads: escaped in JSON, a byte of a head takes six.
  public static func maximumBytes(bodyBytes: Int, headBytes: Int) -> Int {
    min(2 * bodyBytes + 8 * headBytes + (64 << 10), Int(UInt32.max))
  }
}

/// Puts the messages of one ring together again.
public struct MessageAssembly {
  public enum Step: Equatable {
    /// More is to come.
    case partial
    /// The rest of a message whose beginning a predecessor of this reader has read: nothing can be done with it.
    case headless
    case whole(PartedMessage.Address, [UInt8])
  }

  private let maximumBytes: Int
  private var address: PartedMessage.Address?
  private var total = 0
  private var bytes: [UInt8] = []

  /// - Parameter maximumBytes: of a message; a larger one is malformed.
  public init(maximumBytes: Int) { self.maximumBytes = maximumBytes }

  /// The next record that is for this reader. One that begins a message ends an unfinished one: its writer has died over it.
  ///
  /// - Throws: what is wrong with a record that isn't part of a message.
  public mutating func take(_ record: UnsafeRawBufferPointer) throws(RecordFault) -> Step {
    guard record.count >= PartedMessage.headerBytes else { throw .malformed }
    var fields = FieldReader(record)
    guard let version = fields.number(UInt8.self), let code = fields.number(UInt8.self),
      let target = fields.number(UInt16.self), let total = fields.number(UInt32.self).map({ Int($0) }),
      let correlation = fields.number(UInt64.self), let offset = fields.number(UInt32.self).map({ Int($0) })
    else { throw .malformed }
    guard version == PartedMessage.version else {
      throw .version(version, of: "message")
    }
    guard let kind = PartedMessage.Kind(rawValue: code) else { throw .unknown(kind: "message.\(code)") }
    let part = record[PartedMessage.headerBytes...]
    let address = PartedMessage.Address(kind, target: target, correlation: correlation)
    guard total <= maximumBytes, offset + part.count <= total else { throw .malformed }
    if offset == 0 {
      (self.address, self.total) = (address, total)
      bytes.removeAll()
    } else {
      guard let begun = self.address else { return .headless }
      guard begun == address, self.total == total, offset == bytes.count, !part.isEmpty else {
        throw .malformed
      }
    }
    bytes.append(contentsOf: part)
    guard bytes.count == total else {
      if part.isEmpty { throw .malformed }
      return .partial
    }
    defer {
      self.address = nil
      bytes = []
    }
    return .whole(address, bytes)
  }
}
