// Where OpenSSL gets records from and puts them: two buffers instead of a socket, as a BIO of our own.
//
//   channel ─▶ inbound ─▶ [BIO] ─▶ SSL          one copy each way, into and out of OpenSSL's record buffer
//   channel ◀─ outbound ◀─ [BIO] ◀─ SSL
//
// Never blocks: an empty inbound is "try again", outbound always has room. What comes in is bounded by whoever feeds it
// (one read of the channel at a time), what goes out by whoever writes.

import COpenSSL
import NIOCore

final class RecordPipe {
  /// Records from the peer that OpenSSL hasn't taken.
  var inbound = ByteBuffer()
  /// Records for the peer; nil: none.
  var outbound: ByteBuffer?
  private let allocator: ByteBufferAllocator

  init(allocator: ByteBufferAllocator) {
    self.allocator = allocator
  }

  /// Makes a BIO over this pipe, which must outlive it; nil: no memory. The caller owns it.
  func makeBIO() -> OpaquePointer? {
    guard let method = Self.method.pointer, let bio = BIO_new(method) else { return nil }
    BIO_set_data(bio, Unmanaged.passUnretained(self).toOpaque())
    BIO_set_init(bio, 1)
    return bio
  }

  /// Gives outbound room for so many bytes, so that it grows once.
  func expect(bytes: Int) {
    if outbound == nil { outbound = allocator.buffer(capacity: bytes) }
  }

  fileprivate func read(into target: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(target.count, inbound.readableBytes)
    inbound.readWithUnsafeReadableBytes { bytes in
      target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
      return count
    }
    return count
  }

  fileprivate func write(_ bytes: UnsafeRawBufferPointer) {
    // Taken out meanwhile: two references would mean a copy.
    var buffer = outbound ?? allocator.buffer(capacity: bytes.count)
    outbound = nil
    buffer.writeBytes(bytes)
    outbound = buffer
  }

  /// `@unchecked Sendable`: made once, then only read.
  private struct Method: @unchecked Sendable {
    let pointer: OpaquePointer?
  }

  private static let method: Method = {
    let sourceAndSink: CInt = 0x0400
    guard let method = BIO_meth_new(BIO_get_new_index() | sourceAndSink, "rig records") else {
      return Method(pointer: nil)
    }
    BIO_meth_set_read(method, readRecords)
    BIO_meth_set_write(method, writeRecords)
    BIO_meth_set_ctrl(method, control)
    return Method(pointer: method)
  }()
}

private func pipe(of bio: OpaquePointer?) -> RecordPipe? {
  BIO_get_data(bio).map { Unmanaged<RecordPipe>.fromOpaque($0).takeUnretainedValue() }
}

private func readRecords(_ bio: OpaquePointer?, _ target: UnsafeMutablePointer<CChar>?, _ room: CInt) -> CInt
{
  guard let bio, let target, let pipe = pipe(of: bio) else { return -1 }
  rig_bio_clear_retry(bio)
  let count = pipe.read(into: UnsafeMutableRawBufferPointer(start: target, count: Int(room)))
  guard count == 0 else { return CInt(count) }
  rig_bio_want_read(bio)
  return -1
}

private func writeRecords(_ bio: OpaquePointer?, _ bytes: UnsafePointer<CChar>?, _ count: CInt) -> CInt {
  guard let bio, let bytes, count > 0, let pipe = pipe(of: bio) else { return -1 }
  rig_bio_clear_retry(bio)
  pipe.write(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
  return count
}

private func control(
  _ bio: OpaquePointer?, _ command: CInt, _ number: CLong, _ argument: UnsafeMutableRawPointer?
) -> CLong {
  switch command {
  case BIO_CTRL_FLUSH: 1
  case BIO_CTRL_PENDING: pipe(of: bio)?.inbound.readableBytes ?? 0
  default: 0
  }
}
