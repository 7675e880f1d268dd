// Brings an eventfd, or another descriptor that becomes readable, into a NIO event loop.
//
// NIO watches sockets and pipes; a pipe channel over a duplicate of the descriptor reads whatever becomes readable and
// so serves for eventfd (8 bytes per wake-up, counter reset by the read) and signalfd (128 bytes per signal). The
// duplicate shares the counter with the original, which stays the caller's and is never closed here. One read per wake-up,
// into a buffer that is reused: no allocation, no second read to find out that there is nothing more.

import CLinux
import Glibc
import IPC
import NIOCore
import NIOPosix

/// Calls a closure on an event loop whenever an eventfd is signalled.
public final class LoopWake {
  private let source: ReadableSource

  /// Watches `eventfd` (borrowed) from now until `stop`. Call on `loop`; `body` is called on it, once per wake-up however many
  /// signals came together.
  public init(eventfd: CInt, on loop: EventLoop, _ body: @escaping () -> Void) throws(IPCError) {
    source = try ReadableSource(watching: eventfd, readBytes: MemoryLayout<UInt64>.size, on: loop) { _ in
      body()
    }
  }

  /// Ends the watch. Call on the loop.
  public func stop() { source.stop() }
}

/// Calls a closure in the next turn of a loop, when that has looked at its sockets. A task, or a timer that has become due meanwhile, would
/// still run in the turn that is.
final class NextTurn {
  private let eventfd: Descriptor
  private let wake: LoopWake

  /// Call on `loop`; `body` is called on it.
  init(on loop: EventLoop, _ body: @escaping () -> Void) throws(IPCError) {
    eventfd = try EventFD.create()
    wake = try LoopWake(eventfd: eventfd.rawValue, on: loop, body)
  }

  /// However often it is called, there is one call of the closure.
  func call() { EventFD.signal(eventfd.rawValue) }

  /// Call on the loop.
  func stop() { wake.stop() }
}

/// Reads a descriptor as it becomes readable, on an event loop.
final class ReadableSource {
  private var channel: Channel?

  /// `readBytes`: bytes per read. Call on `loop`.
  init(
    watching descriptor: CInt, readBytes: Int, on loop: EventLoop, _ body: @escaping (ByteBuffer) -> Void
  ) throws(IPCError) {
    let duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw IPCError.system(call: "fcntl(F_DUPFD_CLOEXEC)", errno: errno) }
    let handler = NIOLoopBound(Reader(body), eventLoop: loop)
    let future = NIOPipeBootstrap(group: loop)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          // A read that fills the buffer would be followed by another one in the same turn: one byte of room prevents it.
          let allocator = FixedSizeRecvByteBufferAllocator(capacity: readBytes + 1)
          try channel.syncOptions?.setOption(.recvAllocator, value: allocator)
          try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
          try channel.pipeline.syncOperations.addHandler(handler.value)
        }
      }
      .takingOwnershipOfDescriptor(input: duplicate)
    var failure: (any Error)?
    future.assumeIsolated().whenComplete { result in
      switch result {
      case .success(let channel): self.channel = channel
      case .failure(let error): failure = error
      }
    }
    if failure != nil {
      close(duplicate)
      throw IPCError.system(call: "watch descriptor \(descriptor)", errno: EINVAL)
    }
  }

  func stop() {
    channel?.close(promise: nil)
    channel = nil
  }

  private final class Reader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let body: (ByteBuffer) -> Void

    init(_ body: @escaping (ByteBuffer) -> Void) {
      self.body = body
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      body(unwrapInboundIn(data))
    }
  }
}

/// Calls a closure on an event loop for each signal of a set. The signals must be blocked in every thread of the process, or one of
/// them would take the signal by its default action: WorkerProcess sees to that before anything starts a thread.
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

extension EventLoop {
  /// Calls the closure on this loop, on which the caller is, after about a millisecond.
  public func soon(_ body: @escaping () -> Void) {
    assumeIsolated().scheduleTask(in: .milliseconds(1), body)
  }
}
