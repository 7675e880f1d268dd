// Steps at which a worker stops itself, so that a test can kill it there: for tests only, by the environment variable
// RIG_TEST_STOP_AT. It has effect in whoever the gateway's operator gave it to, and costs a load and a branch where it isn't set.
//
//   RIG_TEST_STOP_AT=[PLACE:]STEP[#INCARNATION][@PASSES],…
//   connections.0:sentUnnoted         connections.0, in its first process, stops where it comes to that step first
//   entryAdopted#2@3                  any worker whose process is the second of its place, at the third entry that it adopts

import CLinux
import Glibc
import IPC

/// A step in the life of a connection worker that a death may fall on. `reached` is called there.
public enum StopPoint: UInt32, CaseIterable, Sendable {
  /// Records have been read and are assigned to connections; the turn isn't marked as being sent.
  case planIncomplete
  /// The turn is marked as being sent, and nothing of it has been.
  case planMarked
  /// One of the turn's sends has returned, and its bytes haven't been noted.
  case sentUnnoted
  /// One of the turn's sends has been noted, and the next hasn't begun.
  case betweenSends
  /// One of the connections whose socket was full has what is left in its entry; others may not.
  case settling
  /// Everything of the turn is sent or in entries; the rings' cursors haven't been committed.
  case beforeCommit
  /// The bytes of a single piece are written down; nothing has been sent.
  case intentWritten
  /// The single piece has been sent, and nothing has been noted.
  case intentSent
  /// The single piece has been noted as sent, and is still written down.
  case intentNoted
  /// An event connection's entry exists; its greeting hasn't been written.
  case greeting
  /// A client's bytes have been read, and what they lead to hasn't happened or isn't noted.
  case inputRead
  /// A part of a frame, or of a message, has been read and is kept.
  case frameHalfRead
  /// Subscriptions have been changed in the index, and not in the entry.
  case changeApplied
  /// The entry is free, and the socket open.
  case closing
  /// An heir has received a batch of sockets, and adopted none of it.
  case batchReceived
  /// An heir has become an entry's owner.
  case entryAdopted
  /// An heir has noted a connection that a living process offers, which has it still.
  case claimOpened
  /// An heir has claimed a connection of a living process; its own entry doesn't say so yet.
  case claimWon
  /// An heir has adopted a batch, and not said so.
  case beforeTaken
  /// An heir has adopted everything, and isn't ready yet.
  case adopted
  /// A retiring worker's entries of a batch are being passed; the batch hasn't been sent.
  case batchMarked
  /// The batch has been sent.
  case batchSent
  /// A retiring worker has been told that a batch has been taken, and has done nothing about it.
  case takenReceived
  /// It is about to forget what has been claimed, and to take back the rest.
  case beforeForget

  static let environmentName = "RIG_TEST_STOP_AT"

  /// The worker has come to this step: if a test waits for it the process stops here, until it is killed or gets SIGCONT.
  @inlinable @inline(__always)
  public func reached() { rig_step(rawValue) }

  /// Reads RIG_TEST_STOP_AT. To be called once, before there are other threads.
  ///
  /// - Throws: `.invalid` if it isn't in the form above.
  static func arm(for worker: WorkerIdentity, incarnation: UInt64) throws(IPCError) {
    guard let text = getenv(environmentName).map({ String(cString: $0) }), !text.isEmpty else { return }
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let stop = Stop(part) else {
        throw .invalid("\(environmentName): \"\(part)\", expected [PLACE:]STEP[#INCARNATION][@PASSES]")
      }
      guard stop.place == nil || stop.place == worker.name, stop.incarnation == incarnation else { continue }
      rig_stop_at(stop.step.rawValue, stop.passes)
    }
  }

  /// One part of the variable.
  struct Stop {
    var place: String?
    var step: StopPoint
    var incarnation: UInt64 = 1
    var passes: UInt32 = 1

    init?(_ text: Substring) {
      var rest = text
      if let colon = rest.firstIndex(of: ":") {
        place = String(rest[..<colon])
        rest = rest[rest.index(after: colon)...]
      }
      if let at = rest.firstIndex(of: "@") {
        guard let passes = UInt32(rest[rest.index(after: at)...]), passes > 0 else { return nil }
        self.passes = passes
        rest = rest[..<at]
      }
      if let hash = rest.firstIndex(of: "#") {
        guard let incarnation = UInt64(rest[rest.index(after: hash)...]), incarnation > 0 else { return nil }
        self.incarnation = incarnation
        rest = rest[..<hash]
      }
      guard let step = StopPoint.allCases.first(where: { "\($0)" == rest }) else { return nil }
      self.step = step
    }
  }
}

/// Bytes that a worker dies of by a fault, wherever it meets them: for tests only, by the environment variable RIG_TEST_FAULT_ON, which has
/// the text that they contain.
public enum TestFault {
  private static let environmentName = "RIG_TEST_FAULT_ON"

  /// The worker works on these bytes.
  @inlinable @inline(__always)
  public static func touches(_ bytes: UnsafeRawBufferPointer) { rig_touch(bytes.baseAddress, bytes.count) }

  /// To be called once, before there are other threads.
  static func arm() {
    guard let text = getenv(environmentName), text.pointee != 0 else { return }
    rig_fault_on(strdup(text))
  }
}
