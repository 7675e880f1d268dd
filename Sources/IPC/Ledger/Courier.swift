// The two ends of a courier, by which the sockets of a dead worker come to its heir: the worker's, which starts the keeper, and the
// heir's, which asks for them. What goes over it: keeper.h.

import CLinux
import Glibc

/// The keeper of this process's sockets.
public struct Keeper {
  /// A child of this process.
  public let pid: pid_t
  private let courier: CInt

  /// Starts it. To be called before there is a second thread.
  ///
  /// - Parameters:
  ///   - ledger, courier: stay open in this process; the keeper uses the same ones.
  ///   - incarnation: of this process, as its ledger entries say.
  ///   - supervisor: the process that the keeper falls to, and with which it ends.
  ///   - patienceMs: how long it waits for an heir when this process has died.
  ///   - name: of the worker, for `ps`.
  public init(
    ledger: CInt, courier: CInt, incarnation: UInt64, supervisor: pid_t, patienceMs: Int, name: String
  ) throws(IPCError) {
    var keeper = rig_keeper()
    keeper.ledger = ledger
    keeper.courier = courier
    keeper.incarnation = UInt32(truncatingIfNeeded: incarnation)
    keeper.supervisor = supervisor
    keeper.patience_ms = UInt32(clamping: patienceMs)
    withUnsafeMutableBytes(of: &keeper.name) { field in
      // The last byte stays 0.
      for (index, byte) in "rig-keeper: \(name)".utf8.prefix(field.count - 1).enumerated() {
        field[index] = byte
      }
    }
    let pid = rig_keeper_start(&keeper)
    guard pid > 0 else { throw .system(call: "clone", errno: errno) }
    self.pid = pid
    self.courier = courier
  }

  /// Whether it has ended, which is then known once and for all: who calls this again asks about a stranger.
  public var hasEnded: Bool {
    var status: CInt = 0
    return waitpid(pid, &status, WNOHANG) == pid
  }

  /// No heir is to come: all sockets end with this process. The supervisor sees it.
  public func dismiss() { shutdown(courier, CInt(SHUT_RDWR)) }
}

/// The heir's end of a courier. Nothing here waits; `descriptor` is readable when there is something to be received.
public final class Courier {
  /// A socket of the dead worker, the receiver's own now.
  public struct Socket: Equatable, Sendable {
    /// Number of the ledger entry that it belongs to; nil: it was accepted, and nobody has touched it.
    public let entry: UInt32?
    /// Close-on-exec; the keeper has another one for the same socket until `taken` is told it.
    public let descriptor: CInt
  }

  public enum Message: Equatable, Sendable {
    /// To be dealt with, and then told by `taken`. `lost`: entries whose sockets didn't fit under this process's limit.
    case batch([Socket], lost: [UInt32])
    /// There are no more, and the keeper has ended.
    case done
    /// Nothing now.
    case nothing
    /// The keeper has gone, and nothing comes any more: it had nothing to pass, waited too long, or was killed.
    case gone
  }

  public let descriptor: CInt
  private let incarnation: UInt32
  /// Batches received, not yet told as taken.
  private var unanswered = 0

  /// - Parameters:
  ///   - descriptor: the manifest's; stays the caller's.
  ///   - incarnation: of this process.
  public init(_ descriptor: CInt, incarnation: UInt64) {
    self.descriptor = descriptor
    self.incarnation = UInt32(truncatingIfNeeded: incarnation)
  }

  /// Asks for everything that nobody has taken yet.
  public func ask() { send(RIG_COURIER_ASK) }

  /// Each entry of the oldest unanswered batch is this process's in the ledger, or free; sockets without one are its own. The keeper
  /// closes its copies, and then there may be another batch.
  public func taken() {
    guard unanswered > 0 else { return }
    unanswered -= 1
    send(RIG_COURIER_TAKEN)
  }

  /// The next message. What a former heir has asked for, and didn't live to receive, is closed.
  public func receive() -> Message {
    while true {
      var message = rig_courier_message()
      var descriptors = [CInt](repeating: -1, count: Int(RIG_COURIER_BATCH_ENTRIES))
      var count = CInt(descriptors.count)
      let bytes = rig_message_receive(
        descriptor, &message, MemoryLayout<rig_courier_message>.size, &descriptors, &count)
      if bytes < 0 {
        switch errno {
        case EAGAIN: return .nothing
        // It ended with something of ours unread: said once, and what it had sent comes behind it. Or the message was a stranger's.
        case ECONNRESET, EMSGSIZE: continue
        default: return .gone
        }
      }
      guard bytes > 0 else { return .gone }
      let received = Array(descriptors.prefix(Int(count)))
      if let known = understand(message, bytes, received) { return known }
      for descriptor in received { close(descriptor) }
    }
  }

  /// nil: it is not for this heir, or makes no sense.
  private func understand(_ message: rig_courier_message, _ bytes: Int, _ received: [CInt]) -> Message? {
    guard bytes >= Int(RIG_COURIER_HEAD_BYTES), message.version == RIG_COURIER_VERSION,
      message.incarnation == incarnation
    else { return nil }
    switch Int(message.kind) {
    case Int(RIG_COURIER_DONE): return received.isEmpty ? .done : nil
    case Int(RIG_COURIER_BATCH):
      let count = Int(message.count)
      let entries = withUnsafeBytes(of: message.entries) { field in
        Array(field.bindMemory(to: UInt32.self).prefix(count))
      }
      let stated = Int(RIG_COURIER_HEAD_BYTES) + count * MemoryLayout<UInt32>.size
      guard entries.count == count, bytes == stated, received.count <= count else { return nil }
      unanswered += 1
      let sockets = zip(entries, received).map { entry, descriptor in
        Socket(entry: entry == Self.untouched ? nil : entry, descriptor: descriptor)
      }
      return .batch(sockets, lost: entries.dropFirst(received.count).filter { $0 != Self.untouched })
    default: return nil
    }
  }

  private static let untouched = UInt32.max

  private func send<Kind: BinaryInteger>(_ kind: Kind) {
    var message = rig_courier_message()
    message.version = UInt8(RIG_COURIER_VERSION)
    message.kind = UInt8(kind)
    message.incarnation = incarnation
    // At most three small messages are under way in this direction, and one that has gone reads nothing.
    _ = rig_message_send(descriptor, &message, Int(RIG_COURIER_HEAD_BYTES))
  }
}

/// What the kernel knows of a TCP socket.
public enum SocketCounts {
  /// Bytes that were written to it, acknowledged or not; nil: it isn't one, or moves too fast to be counted.
  public static func written(_ socket: CInt) -> UInt64? {
    var bytes: UInt64 = 0
    return rig_tcp_written(socket, &bytes) == 0 ? bytes : nil
  }

  /// Bytes that were read from it; a FIN of the peer counts one, from its arrival on.
  public static func read(_ socket: CInt) -> UInt64? {
    var bytes: UInt64 = 0
    return rig_tcp_read(socket, &bytes) == 0 ? bytes : nil
  }

  /// A number that no other socket has.
  public static func cookie(_ socket: CInt) -> UInt64? {
    var cookie: UInt64 = 0
    return rig_socket_cookie(socket, &cookie) == 0 ? cookie : nil
  }
}
