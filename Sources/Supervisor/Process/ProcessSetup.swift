// What the supervisor arranges for its own process before it opens anything.

import CLinux
import Glibc

enum ProcessSetup {
  /// Enough for every worker, and little enough for programs that look at each possible descriptor.
  static let mostDescriptors: rlim_t = 1 << 20

  /// To be called once, first, while there is one thread.
  static func prepare() {
    // A reader of our log that goes away must not take the gateway with it.
    signal(SIGPIPE, SIG_IGN)
    // An inherited SIG_IGN would make children vanish without an exit status.
    signal(SIGCHLD, SIG_DFL)
    openStandardDescriptors()
    // What our own parent left open is nobody's business below.
    _ = rig_close_on_exec_from(3)
    raiseDescriptorLimit()
  }

  /// A socket or segment that got the number of a missing standard output would be written into by every log line.
  private static func openStandardDescriptors() {
    for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) < 0 {
      // The lowest free number, which is this one.
      _ = open("/dev/null", O_RDWR)
    }
  }

  /// Workers inherit the limit; the usual soft limit of 1024 is for programs that use select().
  private static func raiseDescriptorLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    let wanted = min(limit.rlim_max, mostDescriptors)
    guard limit.rlim_cur < wanted else { return }
    limit.rlim_cur = wanted
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}
