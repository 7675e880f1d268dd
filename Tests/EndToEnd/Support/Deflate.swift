// zlib as a client of permessage-deflate uses it (RFC 7692 §7.2), with a context of its own for each message.

import CZlib

enum Deflate {
  /// The payload of a compressed message.
  static func message(_ bytes: [UInt8]) throws -> [UInt8] {
    var stream = z_stream()
    let size = CInt(MemoryLayout<z_stream>.size)
    guard deflateInit2_(&stream, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size) == Z_OK else {
      throw TestFailure("deflateInit2")
    }
    defer { deflateEnd(&stream) }
    var input = bytes
    var output = [UInt8](repeating: 0, count: Int(deflateBound(&stream, UInt(input.count))) + 16)
    let length = input.withUnsafeMutableBufferPointer { input in
      output.withUnsafeMutableBufferPointer { output in
        (stream.next_in, stream.avail_in) = (input.baseAddress, UInt32(input.count))
        (stream.next_out, stream.avail_out) = (output.baseAddress, UInt32(output.count))
        _ = deflate(&stream, Z_SYNC_FLUSH)
        return output.count - Int(stream.avail_out)
      }
    }
    return Array(output[..<(length - 4)])
  }

  /// What the payload of a compressed message says.
  static func text(_ payload: [UInt8], atMost limit: Int = 1 << 20) throws -> String {
    var stream = z_stream()
    guard inflateInit2_(&stream, -12, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK else {
      throw TestFailure("inflateInit2")
    }
    defer { inflateEnd(&stream) }
    var input = payload + [0, 0, 0xFF, 0xFF]
    var output = [UInt8](repeating: 0, count: limit)
    let (status, length) = input.withUnsafeMutableBufferPointer { input in
      output.withUnsafeMutableBufferPointer { output in
        (stream.next_in, stream.avail_in) = (input.baseAddress, UInt32(input.count))
        (stream.next_out, stream.avail_out) = (output.baseAddress, UInt32(output.count))
        let status = inflate(&stream, Z_SYNC_FLUSH)
        return (status, output.count - Int(stream.avail_out))
      }
    }
    guard status == Z_OK, stream.avail_in == 0 else { throw TestFailure("no DEFLATE: \(status)") }
    return String(decoding: output[..<length], as: UTF8.self)
  }
}
