// W3C Trace Context, level 1: which traceparent and tracestate a request has.
//
//   00-<trace id, 32 hex>-<parent id, 16 hex>-<flags, 2 hex>          traceparent, all lower case
//
// A request without a valid traceparent gets a new one, and then its tracestate is ignored (§2.2.4, §3.3.1). Ids are
// random, not secret: a fast generator, seeded by the system, makes them without a system call per request.

public struct TraceContext: Equatable, Sendable {
  public var traceparent: String
  public var tracestate: String?

  public init(traceparent: String, tracestate: String? = nil) {
    self.traceparent = traceparent
    self.tracestate = tracestate
  }

  /// With a `tracestate` from outside: one that is too long is left out.
  public init(traceparent: String, boundedTracestate: String?) {
    let state = boundedTracestate.flatMap { $0.utf8.count <= Self.maxTracestateBytes ? $0 : nil }
    self.init(traceparent: traceparent, tracestate: state)
  }

  /// Longest `tracestate` that is passed on, in bytes; the standard asks for at least 512.
  static let maxTracestateBytes = 1024
  /// Longest `traceparent`, in bytes: versions to come may be longer than ours, and a record's length has 16 bits.
  private static let maxTraceparentBytes = 512
  private static let version0Length = 55

  /// Whether `text` is a traceparent that may be forwarded.
  public static func isValid(_ text: String) -> Bool {
    let bytes = Array(text.utf8.prefix(maxTraceparentBytes + 1))
    guard bytes.count >= version0Length, bytes.count <= maxTraceparentBytes else { return false }
    let dashes = [2, 35, 52]
    for index in 0..<version0Length {
      if dashes.contains(index) {
        guard bytes[index] == UInt8(ascii: "-") else { return false }
      } else {
        guard isLowerHex(bytes[index]) else { return false }
      }
    }
    let isUnknownVersion = bytes[0] != UInt8(ascii: "0") || bytes[1] != UInt8(ascii: "0")
    if bytes.count > version0Length {
      guard isUnknownVersion, bytes[version0Length] == UInt8(ascii: "-") else { return false }
      // What later versions put here is unknown, but it goes into headers.
      guard bytes[version0Length...].allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return false }
    }
    guard !(bytes[0] == UInt8(ascii: "f") && bytes[1] == UInt8(ascii: "f")) else { return false }
    return bytes[3..<35].contains { $0 != UInt8(ascii: "0") }
      && bytes[36..<52].contains { $0 != UInt8(ascii: "0") }
  }

  private static func isLowerHex(_ byte: UInt8) -> Bool {
    HTTPOctets.hexadecimal(byte).map { HTTPOctets.hexadecimalDigit($0) } == byte
  }
}

/// Makes trace contexts; one per server, used on its loop only.
public struct TraceSource: Sendable {
  private var random: SplitMix64

  public init(seed: UInt64 = .random(in: 1...UInt64.max)) {
    random = SplitMix64(state: seed)
  }

  /// The context of a request with these header values; `traceparents` counts how often the header came.
  public mutating func context(traceparent: String?, traceparents: Int, tracestate: String?) -> TraceContext {
    if let traceparent, traceparents == 1, TraceContext.isValid(traceparent) {
      return TraceContext(traceparent: traceparent, boundedTracestate: tracestate)
    }
    return TraceContext(traceparent: make(), tracestate: nil)
  }

  /// A new traceparent, sampled.
  public mutating func make() -> String {
    let words = (random.next() | 1, random.next(), random.next() | 1)
    return String(unsafeUninitializedCapacity: 55) { buffer in
      var position = 0
      func put(_ byte: UInt8) {
        buffer[position] = byte
        position += 1
      }
      func hex(_ word: UInt64) {
        var word = word
        for _ in 0..<16 {
          word = word << 4 | word >> 60
          put(HTTPOctets.hexadecimalDigit(UInt8(truncatingIfNeeded: word) & 0xf))
        }
      }
      put(UInt8(ascii: "0"))
      put(UInt8(ascii: "0"))
      put(UInt8(ascii: "-"))
      hex(words.0)
      hex(words.1)
      put(UInt8(ascii: "-"))
      hex(words.2)
      put(UInt8(ascii: "-"))
      put(UInt8(ascii: "0"))
      put(UInt8(ascii: "1"))
      return position
    }
  }
}

/// Steele, Lea and Flood's SplitMix64: a 64-bit counter through a mixing function.
private struct SplitMix64: RandomNumberGenerator, Sendable {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
