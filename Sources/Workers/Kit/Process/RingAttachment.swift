// Attaching to a ring that may be damaged. A worker that can't attach ends, and each of its successors would find the same
// damage: so it leaves word on its status page before it ends, and the supervisor formats the ring anew.

import Glibc
import IPC

private let attachAttempts = 3
private let attachPauseMicroseconds: useconds_t = 10_000

extension StatusPage {
  /// Attaches to the ring of `grant` by `attach`. If that finds the ring corrupt, it is reported. A ring that is being
  /// formatted anew meanwhile looks corrupt for an instant: only what stays so is.
  public func attaching<Attached>(
    _ grant: RingGrant, _ attach: () throws(IPCError) -> Attached
  ) throws(IPCError) -> Attached {
    var attempt = 1
    while true {
      let epoch = Ring.epoch(of: grant.fd)
      do throws(IPCError) {
        return try attach()
      } catch {
        let isLast = attempt == attachAttempts
        switch error {
        case .corrupt(let reason) where isLast:
          reportCorrupt(RingReport(ring: grant.id, epoch: epoch))
          throw .corrupt("ring \(grant.name): \(reason)")
        case .corrupt:
          break
        case .reset where !isLast:
          break
        default:
          throw error
        }
      }
      attempt += 1
      usleep(attachPauseMicroseconds)
    }
  }
}
