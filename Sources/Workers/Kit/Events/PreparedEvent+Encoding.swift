// Writes an event as a ring's record; the layout is in EventLayout.

extension PreparedEvent {
  /// What doesn't lie in the event as bytes already: made once, before room is asked for.
  struct Encoded {
    let header: [UInt8]
    /// Everything between the header and the JSON.
    let middle: [UInt8]

    var prefixBytes: Int { header.count + middle.count }
  }

  /// Bytes of the record.
  public var encodedLength: Int { encoded().prefixBytes + json.count }

  /// Fails for texts and lists that are longer than their place in the layout can say; the parser's limits see to that.
  func encoded() -> Encoded {
    var middle: [UInt8] = []
    middle.reserveCapacity(128 + type.utf8.count + source.utf8.count + id.utf8.count)
    middle.append(contentsOf: type.utf8)
    middle.append(contentsOf: source.utf8)
    middle.append(contentsOf: id.utf8)
    middle.append(contentsOf: trace.traceparent.utf8)
    let tracestate = trace.tracestate ?? ""
    middle.append(contentsOf: tracestate.utf8)
    let logAt = middle.count
    if let origin {
      if origin.source != .kafka { Self.append(origin.source.rawValue, to: &middle) }
      middle.append(contentsOf: origin.topic.utf8)
    }
    let logBytes = middle.count - logAt
    for user in users {
      Self.append(UInt32(clamping: user.utf8.count), to: &middle)
      middle.append(contentsOf: user.utf8)
    }
    for field in fields { Self.append(field, to: &middle) }

    var flags: UInt8 = isPlainMessage ? EventLayout.Flag.plainMessage : 0
    if expiresAtUnixMs != nil { flags |= EventLayout.Flag.expires }
    if let origin {
      flags |= origin.source == .kafka ? EventLayout.Flag.kafkaOrigin : EventLayout.Flag.otherOrigin
    }
    var header: [UInt8] = []
    header.reserveCapacity(EventLayout.headerBytes)
    header.append(EventLayout.format)
    header.append(flags)
    Self.append(UInt16(clamping: fields.count), to: &header)
    Self.append(UInt32(clamping: type.utf8.count), to: &header)
    Self.append(acceptedAtNs, to: &header)
    Self.append(expiresAtUnixMs ?? 0, to: &header)
    Self.append(UInt32(clamping: source.utf8.count), to: &header)
    Self.append(UInt32(clamping: id.utf8.count), to: &header)
    Self.append(UInt16(clamping: trace.traceparent.utf8.count), to: &header)
    Self.append(UInt16(clamping: tracestate.utf8.count), to: &header)
    Self.append(UInt16(clamping: logBytes), to: &header)
    Self.append(UInt16(clamping: users.count), to: &header)
    Self.append(origin?.partition ?? 0, to: &header)
    Self.append(UInt32(clamping: json.count), to: &header)
    Self.append(origin?.offset ?? 0, to: &header)
    return Encoded(header: header, middle: middle)
  }

  /// Writes the whole record to the beginning of `buffer`, which has `encodedLength` bytes.
  func encode(_ encoded: Encoded, into buffer: UnsafeMutableRawBufferPointer) {
    buffer.copyBytes(from: encoded.header)
    UnsafeMutableRawBufferPointer(rebasing: buffer[encoded.header.count...]).copyBytes(from: encoded.middle)
    UnsafeMutableRawBufferPointer(rebasing: buffer[encoded.prefixBytes...]).copyBytes(from: json)
  }

  private static func append(_ field: Field, to bytes: inout [UInt8]) {
    append(UInt16(clamping: field.name.utf8.count), to: &bytes)
    let lengthAt = bytes.count
    append(UInt32(0), to: &bytes)
    bytes.append(contentsOf: field.name.utf8)
    let valueAt = bytes.count
    field.value.encode(into: &bytes)
    withUnsafeBytes(of: UInt32(clamping: bytes.count - valueAt).littleEndian) {
      bytes.replaceSubrange(lengthAt..<lengthAt + 4, with: $0)
    }
  }

  private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
}
