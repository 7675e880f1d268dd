// Signals as events of an event loop, by signalfd.
//
// The signals must be blocked in every thread of the process, or one of them would take the signal by its default
// action: `block` comes first in main, before anything starts a thread. No handler runs, so nothing has to be
// async-signal-safe.

import CLinux
import Glibc
import IPC
import NIOCore

/// Calls a closure on an event loop for each signal of a set.
public final class LoopSignals {
  private let source: ReadableSource

  /// Blocks `signals` in the calling thread and in all that it starts later. Call before any other thread exists.
  public static func block(_ signals: [CInt]) throws(IPCError) {
    let result = rig_block_signals(signals, CInt(signals.count))
    guard result == 0 else { throw IPCError.system(call: "pthread_sigmask", errno: result) }
  }

  /// Watches `signals`, which must be blocked. Call on `loop`; `body` is called on it with the signal's number. Several
  /// instances of one signal that come together are one call.
  public init(_ signals: [CInt], on loop: EventLoop, _ body: @escaping (CInt) -> Void) throws(IPCError) {
    let raw = rig_signalfd(signals, CInt(signals.count))
    guard raw >= 0 else { throw IPCError.system(call: "signalfd", errno: errno) }
    let descriptor = Descriptor(owning: raw)
    source = try ReadableSource(
      watching: descriptor.rawValue, readBytes: MemoryLayout<signalfd_siginfo>.size, on: loop
    ) { record in
      // ssi_signo is the first field of the record.
      if let number = record.getInteger(at: record.readerIndex, endianness: .host, as: UInt32.self) {
        body(CInt(truncatingIfNeeded: number))
      }
    }
  }

  /// Ends the watch; the signals stay blocked. Call on the loop.
  public func stop() { source.stop() }
}
