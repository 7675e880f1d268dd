// The first bytes of a client that speaks HTTP/2 with prior knowledge (RFC 9113 §3.4). Pure.
//
//   PRI * HTTP/2.0␍␊␍␊SM␍␊␍␊      chosen so that no request of HTTP/1 begins like it

import NIOCore

enum HTTP2Preface {
  enum Match {
    /// HTTP/1, or nonsense.
    case absent
    /// So far it is one; more has to come.
    case begun
    case whole
  }

  private static let text: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

  /// What the first bytes of a connection begin with.
  static func match(_ bytes: ByteBufferView) -> Match {
    let preface = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    guard zip(bytes, preface).allSatisfy({ $0 == $1 }) else { return .absent }
    return bytes.count >= preface.count ? .whole : .begun
  }
}
