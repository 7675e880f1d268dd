// Which readers to wake, and with which eventfd.
//
// A flag is taken (exchanged for 0) before its eventfd is written: a reader that sleeps again in between sets it
// anew and looks at the tail once more. The other order would lose that second sleep. A writer that dies between
// the two leaves a reader asleep; its successor signals everybody when it attaches.

import CLinux

/// The eventfds of a ring's readers, as its writer has them.
struct WakeTable {
  private let descriptors: [CInt]
  private let known: ReaderSet
  private let segment: RingSegment

  init(_ wake: [CInt], segment: RingSegment) {
    descriptors = wake
    self.segment = segment
    var known: ReaderSet = []
    for (slot, descriptor) in wake.enumerated() where descriptor >= 0 && slot < segment.readers {
      known.insert(.only(slot))
    }
    self.known = known
  }

  /// Wakes those in `set` that have declared themselves asleep. One load per reader that is awake.
  func signalSleepers(_ set: ReaderSet) {
    var rest = set.intersection(known).rawValue
    while rest != 0 {
      let slot = rest.trailingZeroBitCount
      rest &= rest &- 1
      let flag = segment.base + RingLayout.reader(slot) + RingLayout.asleepOffset
      if rig_load_seq_cst(flag) != 0, rig_exchange_seq_cst(flag, 0) != 0 {
        EventFD.signal(descriptors[slot])
      }
    }
  }

  /// Wakes everybody, asleep or not.
  func signalAll() {
    for descriptor in descriptors where descriptor >= 0 { EventFD.signal(descriptor) }
  }
}
