// The supervisor's side of a ring: making a segment, formatting it anew, and saying who reads it.
//
// The supervisor never reads a record. Whatever a worker wrote into a segment, none of these can fail because of
// it, except where the text says so.

import CLinux
import Glibc

/// Creation and administration of ring segments.
public enum Ring {
  /// Reader slots of a segment.
  public static let maximumReaders = 64

  /// A new ring: a memfd, sized, formatted, and sealed against resizing.
  ///
  /// - Parameters:
  ///   - name: shows in /proc and nowhere else.
  ///   - capacity: bytes for records with their headers; a multiple of 4096, at most 4 GiB. Memory is used as the
  ///     ring fills for the first time.
  ///   - readers: the slots 0 ..< readers exist and are registered; 1 to 64.
  public static func create(name: String, capacity: Int, readers: Int) throws(IPCError) -> Descriptor {
    guard capacity >= RingLayout.minimumCapacity, capacity <= RingLayout.maximumCapacity,
      capacity % RingLayout.capacityUnit == 0
    else {
      throw .invalid(
        """
        capacity of ring \(name) is \(capacity), expected a multiple of \(RingLayout.capacityUnit) \
        up to \(RingLayout.maximumCapacity)
        """)
    }
    try requireSlots(readers, "ring \(name)")
    let descriptor = try SharedMemory.create(name: name, bytes: RingLayout.headerBytes + capacity)
    let memory = try SharedMemory(
      mapping: descriptor.rawValue, writable: true, minimumBytes: RingLayout.headerBytes)
    register(memory, readers: readers)
    format(memory, epoch: 0, readers: readers)
    return descriptor
  }

  private static func requireSlots(_ readers: Int, _ what: String) throws(IPCError) {
    guard readers >= 1, readers <= maximumReaders else {
      throw .invalid("\(what) has \(readers) readers, expected 1 to \(maximumReaders)")
    }
  }

  private static func register(_ memory: SharedMemory, readers: Int) {
    for slot in 0..<readers {
      rig_store_relaxed(memory.base + RingLayout.reader(slot) + RingLayout.registeredOffset, 1)
    }
  }

  /// Formats `fd` in place under the next epoch, after its writer was killed for corruption. Sequences go on above
  /// everything published before. The next writer to attach wakes the readers; each is told `.reset` once.
  ///
  /// - Parameters:
  ///   - readers: as at creation: the slots 0 ..< readers exist and are registered, whatever was written over these
  ///     words. nil: slots and registrations stay as the segment states them.
  ///   - knownEpoch: the epoch that the last formatting gave it, if the caller has kept it; nil: only the segment says it.
  /// - Returns: the new epoch, above both.
  /// - Throws: `.corrupt` if nothing says the epoch, or the epochs (1,023) are used up: then only a new gateway helps.
  @discardableResult
  public static func reset(
    _ fd: CInt, readers: Int? = nil, knownEpoch: UInt64? = nil
  ) throws(IPCError) -> UInt64 {
    let memory = try SharedMemory(
      mapping: fd, writable: true, minimumBytes: RingLayout.headerBytes + RingLayout.minimumCapacity)
    let stated = rig_load_acquire(memory.base + RingLayout.epochOffset)
    let check = rig_load_acquire(memory.base + RingLayout.epochCheckOffset)
    // Readers may have followed what the segment states, even if it was a lie.
    let readable = stated == ~check ? stated : nil
    guard let epoch = [readable, knownEpoch].compactMap({ $0 }).max(), epoch < RingLayout.maximumEpoch else {
      throw .corrupt("ring epoch is \(stated), its complement \(check): there is no next epoch")
    }
    guard let readers else {
      let stated = rig_load_relaxed(memory.base + RingLayout.readersOffset)
      let slots = stated >= 1 && stated <= UInt64(maximumReaders) ? Int(stated) : maximumReaders
      format(memory, epoch: epoch + 1, readers: slots)
      return epoch + 1
    }
    try requireSlots(readers, "ring to be reset")
    register(memory, readers: readers)
    format(memory, epoch: epoch + 1, readers: readers)
    return epoch + 1
  }

  /// The epoch that the segment states; nil if it can't be read.
  public static func epoch(of fd: CInt) -> UInt64? {
    try? RingSegment(mapping: fd, access: .none).epoch()
  }

  /// Says whether the writer must wait for `reader`, in whose slot nobody is reading. A slot that is registered again
  /// continues at the tail: whatever the writer has taken for passed by everybody lies before it.
  public static func setRegistered(_ fd: CInt, reader: Int, _ registered: Bool) throws(IPCError) {
    let segment = try RingSegment(mapping: fd, access: .header)
    guard reader >= 0, reader < segment.readers else {
      throw .invalid("reader slot \(reader) does not exist, expected 0 to \(segment.readers - 1)")
    }
    let slot = segment.base + RingLayout.reader(reader)
    if registered, rig_load_relaxed(slot + RingLayout.registeredOffset) != 1 {
      // Registered first, so that the writer waits for the old cursor, whatever it is, until the new one is there.
      rig_store_seq_cst(slot + RingLayout.registeredOffset, 1)
      rig_store_release(slot + RingLayout.cursorOffset, try segment.bounds().tail)
    } else {
      rig_store_seq_cst(slot + RingLayout.registeredOffset, registered ? 1 : 0)
    }
  }

  /// Writes every word that a reader or writer verifies. Tail comes last: a reader that sees it sees all of it.
  private static func format(_ memory: SharedMemory, epoch: UInt64, readers: Int) {
    let base = memory.base
    let start = RingLayout.base(of: epoch)
    rig_store_relaxed(base + RingLayout.versionOffset, RingLayout.version)
    rig_store_relaxed(
      base + RingLayout.capacityOffset, UInt64(memory.bytes - RingLayout.headerBytes))
    rig_store_relaxed(base + RingLayout.readersOffset, UInt64(readers))
    rig_store_relaxed(base + RingLayout.epochOffset, epoch)
    rig_store_relaxed(base + RingLayout.epochCheckOffset, ~epoch)
    for slot in 0..<maximumReaders {
      let reader = base + RingLayout.reader(slot)
      rig_store_relaxed(reader + RingLayout.cursorOffset, start)
      if rig_load_relaxed(reader + RingLayout.registeredOffset) != 1 || slot >= readers {
        rig_store_relaxed(reader + RingLayout.registeredOffset, 0)
      }
    }
    rig_store_release(base + RingLayout.magicOffset, RingLayout.magic)
    rig_store_relaxed(base + RingLayout.publishedSequenceOffset, start)
    rig_store_release(base + RingLayout.headOffset, start)
    rig_store_seq_cst(base + RingLayout.tailOffset, start)
  }
}
