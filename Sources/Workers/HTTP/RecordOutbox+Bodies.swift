// Bodies on their way into a ring, in frames of a bounded size.

import Kit
import NIOCore

extension RecordOutbox {
  /// Sends all of `body`, in as many frames as it takes. False: there is no room; what was sent of it is sent.
  public func send(_ body: ByteBuffer, as type: UInt16, target: UInt16, correlation: UInt64) -> Bool {
    let most = min(ExchangeWindow.frameBytes, maximumPayload - ExchangeFrame.headerBytes)
    let header = ExchangeFrame.Header.body(target: target, correlation: correlation)
    return body.withUnsafeReadableBytes { bytes in
      var start = 0
      while start < bytes.count {
        let end = min(bytes.count, start + most)
        let part = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
        let isSent = send(
          type: type, target: target, length: ExchangeFrame.headerBytes + part.count,
          isFollowed: end < bytes.count
        ) { buffer in
          header.encode(into: buffer)
          UnsafeMutableRawBufferPointer(rebasing: buffer[ExchangeFrame.headerBytes...]).copyMemory(from: part)
        }
        guard isSent else { return false }
        start = end
      }
      return true
    }
  }
}
