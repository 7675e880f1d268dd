// Attaching to a ring that may be damaged. A worker that can't attach ends, and each of its successors would find the same
// damage: so it leaves word on its status page before it ends, and the supervisor formats the ring anew.

import IPC

extension StatusPage {
  /// Attaches to the ring of `grant` by `attach`. If that finds the ring corrupt, it is reported.
  public func attaching<Attached>(
    _ grant: WorkerManifest.RingGrant, _ attach: () throws(IPCError) -> Attached
  ) throws(IPCError) -> Attached {
    do throws(IPCError) {
      return try attach()
    } catch {
      if case .corrupt(let reason) = error {
        reportCorrupt(ring: grant.id)
        throw .corrupt("ring \(grant.name): \(reason)")
      }
      throw error
    }
  }
}
