// What scripts/fuzz runs: libFuzzer's input as the bytes of a connection, read by the one parser, one message behind the other.
//
//   kind and cut, 1 byte each   bytes of the connection
//
// It ends the process, and so the run, if the same bytes in two pieces, or one by one, are understood differently from the bytes as a
// whole, or if what was understood, written down again, is understood differently. Built with the sources of Message alone.

/// A failed precondition says nothing of what it was in an optimised build.
private func expect(_ isSo: Bool, _ what: @autoclosure () -> String) {
  if !isSo { fatalError(what()) }
}

private enum Event: Equatable {
  case request(RequestHead)
  case response(ResponseHead)
  case content([UInt8])
  case end(HTTPFields)
}

private struct Reading: Equatable {
  var events: [Event] = []
  var defect: MessageDefect?
  /// What is left, unless there is a defect.
  var rest: [UInt8] = []
}

private struct Reader {
  private static let limits = HeadLimits(maxBytes: 4096, maxFields: 50)

  private let kind: MessageKind
  private var requests = RequestHeadParser(limits: limits)
  private var responses = ResponseHeadParser(limits: limits)
  private var body: BodyDecoder?
  private(set) var reading = Reading()

  init(_ kind: MessageKind) { self.kind = kind }

  static func read(_ kind: MessageKind, _ pieces: [ArraySlice<UInt8>]) -> Reading {
    var reader = Reader(kind)
    for piece in pieces { reader.take(piece) }
    return reader.reading
  }

  private mutating func take(_ piece: ArraySlice<UInt8>) {
    guard reading.defect == nil else { return }
    reading.rest += piece
    let input = reading.rest
    var taken = 0
    do throws(MessageDefect) {
      try input.withUnsafeBufferPointer { (octets) throws(MessageDefect) in
        while try step(octets, &taken) {}
      }
      reading.rest = Array(input[taken...])
    } catch {
      reading.defect = error
      reading.rest = []
    }
  }

  private mutating func step(_ octets: Octets, _ taken: inout Int) throws(MessageDefect) -> Bool {
    guard var decoder = body else { return try head(octets, &taken) }
    let step = try decoder.next(octets, taken: &taken, most: .max)
    body = decoder
    switch step {
    case .needsInput, .held: return false
    case .content(let count):
      expect(count > 0 && taken + count <= octets.count, "content that isn't there")
      append(octets[taken..<(taken + count)])
      taken += count
    case .end(let trailers):
      body = nil
      reading.events.append(.end(trailers))
    }
    return true
  }

  private mutating func append(_ content: Slice<Octets>) {
    if case .content(let before) = reading.events.last {
      reading.events[reading.events.count - 1] = .content(before + content)
    } else {
      reading.events.append(.content(Array(content)))
    }
  }

  private mutating func head(_ octets: Octets, _ taken: inout Int) throws(MessageDefect) -> Bool {
    let framing: BodyFraming
    switch kind {
    case .request:
      guard let head = try requests.next(octets, taken: &taken) else { return false }
      expect(head.framing != .untilClose && head.framing != .counted(0), "framing of a request")
      reading.events.append(.request(head))
      framing = head.framing
    case .response:
      guard let head = try responses.next(octets, taken: &taken) else { return false }
      reading.events.append(.response(head))
      guard !head.isInterim else { return true }
      framing = head.framing(isToHead: false)
    }
    body = BodyDecoder(framing, of: kind, limits: Self.limits)
    return true
  }
}

/// The events as the shortest messages that say the same; nil: there is none, since a reason isn't kept octet for octet.
private func written(_ events: [Event]) -> [UInt8]? {
  var bytes: [UInt8] = []
  var framing = BodyFraming.none
  func line(_ text: String) { bytes += Array(text.utf8) + [13, 10] }
  func fields(_ fields: HTTPFields) {
    expect(HTTPFields(wireBlock: fields.wireBlock) == fields, "a block that isn't one")
    bytes += fields.wireBlock + [13, 10]
  }
  for event in events {
    switch event {
    case .request(let head):
      line("\(head.method) \(head.target) HTTP/1.\(head.minorVersion)")
      fields(head.fields)
      framing = head.framing
    case .response(let head):
      guard !head.reason.unicodeScalars.contains("\u{fffd}") else { return nil }
      line("HTTP/1.\(head.minorVersion) \(head.status) \(head.reason)")
      fields(head.fields)
      framing = head.framing(isToHead: false)
    case .content(let content):
      if framing == .chunked { line(String(content.count, radix: 16)) }
      bytes += content
      if framing == .chunked { bytes += [13, 10] }
    case .end(let trailers):
      guard framing == .chunked else { break }
      line("0")
      fields(trailers)
    }
  }
  return bytes
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let data = UnsafeBufferPointer(start: start, count: count)
  guard count > 2 else { return 0 }
  let kind = data[0] & 1 == 0 ? MessageKind.request : .response
  let bytes = Array(data[2...])
  let whole = Reader.read(kind, [bytes[...]])
  let cut = Int(data[0] >> 1) << 8 | Int(data[1])
  let parted = Reader.read(kind, [bytes[..<(cut % bytes.count)], bytes[(cut % bytes.count)...]])
  expect(parted == whole, "understood differently when cut at \(cut % bytes.count)")
  if bytes.count < 1024 {
    let dripped = Reader.read(kind, bytes.indices.map { bytes[$0..<($0 + 1)] })
    expect(dripped == whole, "understood differently octet by octet")
  }
  if let again = written(whole.events) {
    let second = Reader.read(kind, [again[...]])
    expect(
      second.events == whole.events && second.defect == nil, "what was understood isn't when written")
  }
  return 0
}
