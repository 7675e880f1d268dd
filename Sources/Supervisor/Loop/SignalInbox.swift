// Signals as something to read: blocked for the whole process, taken one by one in the event loop. Children start with
// none blocked (see rig_spawn).

import CLinux
import Glibc
import IPC

/// What a signal asks of the supervisor.
enum SignalRequest: Equatable, Sendable {
  /// TERM, INT: stop everything in order, then exit.
  case stop
  /// QUIT: kill everything, then exit.
  case quit
  /// HUP: read again what can be read again.
  case reload
  /// A signal whose meaning is reserved and not available in this version.
  case unavailable(name: String, meaning: String)

  init?(signal: CInt) {
    switch signal {
    case SIGTERM, SIGINT: self = .stop
    case SIGQUIT: self = .quit
    case SIGHUP: self = .reload
    case SIGUSR1: self = .unavailable(name: "SIGUSR1", meaning: "rolling restart of the workers")
    case SIGUSR2: self = .unavailable(name: "SIGUSR2", meaning: "switch to another release")
    case SIGTTIN: self = .unavailable(name: "SIGTTIN", meaning: "one connection worker more")
    case SIGTTOU: self = .unavailable(name: "SIGTTOU", meaning: "one connection worker fewer")
    default: return nil
    }
  }
}

/// Owns a signalfd.
struct SignalInbox: ~Copyable {
  static let signals: [CInt] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU]

  private let inbox: Descriptor

  /// Blocks the signals; to be created before there is a second thread, which would receive them otherwise.
  init() throws(IPCError) {
    let error = rig_block_signals(Self.signals, CInt(Self.signals.count))
    guard error == 0 else { throw .system(call: "pthread_sigmask", errno: error) }
    let number = rig_signalfd(Self.signals, CInt(Self.signals.count))
    guard number >= 0 else { throw .system(call: "signalfd", errno: errno) }
    inbox = Descriptor(owning: number)
  }

  /// To be watched for input.
  var descriptor: CInt { inbox.rawValue }

  /// The next signal that has arrived, with the process that sent it (0: the kernel, as for Ctrl-C).
  func take() -> (request: SignalRequest, number: CInt, sender: pid_t)? {
    var sender: pid_t = 0
    let number = rig_signalfd_take(inbox.rawValue, &sender)
    guard number != 0, let request = SignalRequest(signal: number) else { return nil }
    return (request, number, sender)
  }
}
