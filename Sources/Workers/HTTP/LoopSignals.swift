// Signals as events of an event loop, by signalfd.
//
// The signals must be blocked in every thread of the process, or one of them would take the signal by its default
// action: WorkerProcess sees to that before anything starts a thread. No handler runs, so nothing has to be
// async-signal-safe.

import CLinux
import Glibc
import IPC
import NIOCore

/// Calls a closure on an event loop for each signal of a set.
public final class LoopSignals {
  private let source: ReadableSource

  /// Watches a signalfd, which stays the caller's. Call on `loop`; `body` is called on it with the signal's number. Several
  /// instances of one signal that come together are one call.
  public init(descriptor: CInt, on loop: EventLoop, _ body: @escaping (CInt) -> Void) throws(IPCError) {
    source = try ReadableSource(
      watching: descriptor, readBytes: MemoryLayout<signalfd_siginfo>.size, on: loop
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
