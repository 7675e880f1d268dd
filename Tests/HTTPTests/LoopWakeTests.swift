// Wake-ups and signals on an event loop.

import CLinux
import Glibc
import IPC
import NIOCore
import NIOPosix
import Testing

@testable import HTTP

struct LoopWakeTests {
  /// Counts on one loop.
  private final class Tally: @unchecked Sendable {
    var count = 0
    var last: CInt = 0
    var wake: LoopWake?
    var signals: LoopSignals?
  }

  @Test("Every signal wakes the loop, and the eventfd stays its owner's")
  func wakes() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let eventfd = try EventFD.create()
    let raw = eventfd.rawValue
    let tally = Tally()
    try await loop.submit { tally.wake = try LoopWake(eventfd: raw, on: loop) { tally.count += 1 } }.get()
    for round in 1...100 {
      EventFD.signal(raw)
      try await loop.wait { tally.count >= round }
    }
    #expect(try await loop.submit { tally.count }.get() == 100)
    try await loop.submit {
      tally.wake?.stop()
      tally.wake = nil
    }.get()
    EventFD.signal(raw)
    var value: UInt64 = 0
    #expect(read(raw, &value, 8) == 8, "the descriptor still works and nobody else drains it")
    #expect(value == 1)
    #expect(try await loop.submit { tally.count }.get() == 100)
    try await group.shutdownGracefully()
  }

  @Test("Signals that come together are one wake-up")
  func coalesces() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let eventfd = try EventFD.create()
    let raw = eventfd.rawValue
    let tally = Tally()
    try await loop.submit {
      tally.wake = try LoopWake(eventfd: raw, on: loop) { tally.count += 1 }
      for _ in 0..<1000 { EventFD.signal(raw) }
    }.get()
    try await loop.wait { tally.count > 0 }
    #expect(try await loop.submit { tally.count }.get() == 1)
    try await loop.submit { tally.wake?.stop() }.get()
    try await group.shutdownGracefully()
  }

  @Test("A descriptor that isn't open is refused")
  func refused() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    await #expect(throws: IPCError.self) {
      try await loop.submit { _ = try LoopWake(eventfd: -1, on: loop) {} }.get()
    }
    try await group.shutdownGracefully()
  }

  @Test("A blocked signal becomes an event of the loop")
  func signals() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let tally = Tally()
    try await loop.submit {
      // Sent to this thread alone: the other threads of the test process don't block it.
      rig_block_signals([SIGUSR2], 1)
      let descriptor = Descriptor(owning: rig_signalfd([SIGUSR2], 1))
      tally.signals = try LoopSignals(descriptor: descriptor.rawValue, on: loop) { number in
        tally.count += 1
        tally.last = number
      }
      pthread_kill(pthread_self(), SIGUSR2)
    }.get()
    try await loop.wait { tally.count == 1 && tally.last == SIGUSR2 }
    try await loop.submit { tally.signals?.stop() }.get()
    try await group.shutdownGracefully()
  }
}
