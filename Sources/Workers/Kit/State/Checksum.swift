// CRC-32C (Castagnoli, reflected), as iSCSI and ext4 use it: finds every damage of up to 32 bits in a row. It protects
// against disks and editors, not against somebody who means harm.

public enum Checksum {
  private static let polynomial: UInt32 = 0x82F6_3B78

  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ polynomial : crc >> 1 }
  }

  /// Takes some nanoseconds for each byte.
  public static func crc32c(_ bytes: some Sequence<UInt8>) -> UInt32 {
    table.withUnsafeBufferPointer { table in
      ~bytes.reduce(~0) { crc, byte in crc >> 8 ^ table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
    }
  }
}
