// Writer and readers at the same time in one process and on one mapping: the only arrangement in which the thread
// sanitizer sees both sides of a publication, of a commit, and of the room that is written anew after it.

import Glibc
import Testing

@testable import IPC
@testable import RingTool

@Suite("Threads on one mapping")
struct RingThreadTests {
  private static let readers = 3
  private static let records: UInt64 = 20_000
  /// Longer than any pause of a thread; only a lost wake-up waits so long.
  private static let patienceMilliseconds: CInt = 60_000

  /// One mapping, as all threads use it.
  private struct Shared: Sendable {
    nonisolated(unsafe) let segment: RingSegment
    let fd: CInt
    let wake: [CInt]
  }

  @Test("see every record complete and in order, and are woken for it", .timeLimit(.minutes(15)))
  func everyRecord() async throws {
    let ring = try TestRing(capacity: 8192, readers: Self.readers)
    let shared = Shared(
      segment: try RingSegment(mapping: ring.fd, access: .all), fd: ring.fd, wake: ring.wake)
    async let written = outcome { try Self.write(shared) }
    async let first = outcome { try Self.reading(shared, slot: 0) }
    async let second = outcome { try Self.reading(shared, slot: 1) }
    async let third = outcome { try Self.reading(shared, slot: 2) }
    // All of them, whoever failed first: what one says explains why others waited in vain.
    for result in await [first, second, third] {
      let replayed = try? result.get()
      #expect((replayed ?? 0) > 0, "\(result)")
    }
    let last = await written
    #expect((try? last.get()) == Self.records, "\(last)")
    #expect(try ring.usage().usedBytes == 0)
  }

  /// - Returns: the last sequence published.
  private static func write(_ shared: Shared) throws -> UInt64 {
    let writer = try RingWriter(segment: shared.segment, wake: shared.wake)
    var random = SplitMix(seed: 71)
    let clock = ContinuousClock()
    var fullSince: ContinuousClock.Instant?
    while writer.nextSequence <= records {
      let record = StressRecord(sequence: writer.nextSequence, maximumPayload: writer.maximumPayload)
      if writer.append(type: record.type, length: record.length, record.fill) == .full {
        writer.publish()
        let since = fullSince ?? clock.now
        fullSince = since
        guard clock.now - since < .milliseconds(2 * Int(patienceMilliseconds)) else {
          throw StressFailure("the ring stays full at record \(writer.nextSequence)")
        }
        Waiting.moment()
        continue
      }
      fullSince = nil
      if Int.random(in: 0..<8, using: &random) == 0 {
        writer.publish()
      }
    }
    writer.publish()
    return writer.nextSequence - 1
  }

  private func outcome<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async
    -> Result<Value, any Error>
  {
    do {
      return .success(try await onOwnThread(body))
    } catch {
      return .failure(error)
    }
  }

  /// Reads; the writer doesn't wait for a reader that has failed.
  private static func reading(_ shared: Shared, slot: Int) throws -> Int {
    do {
      return try read(shared, slot: slot)
    } catch {
      try Ring.setRegistered(shared.fd, reader: slot, false)
      throw error
    }
  }

  /// - Returns: the number of records seen again in replays.
  private static func read(_ shared: Shared, slot: Int) throws -> Int {
    let reader = try RingReader(segment: shared.segment, slot: slot)
    var random = SplitMix(seed: 72 + UInt64(slot))
    var replayed = 0
    while reader.lastSequence < records {
      let expected = reader.lastSequence + 1
      if let record = try reader.next() {
        let known = StressRecord(sequence: expected, maximumPayload: reader.maximumPayload)
        guard record.sequence == expected, known.matches(record) else {
          throw StressFailure("reader \(slot) found \(Seen(record)), expected record \(expected)")
        }
        if Int.random(in: 0..<5, using: &random) == 0 { reader.commit() }
        if Int.random(in: 0..<50, using: &random) == 0 {
          let start = expected - min(expected, 20)
          var sound = true
          _ = try reader.replay(after: start, through: expected) { record in
            replayed += 1
            let known = StressRecord(sequence: record.sequence, maximumPayload: reader.maximumPayload)
            sound = sound && known.matches(record)
            return true
          }
          guard sound else { throw StressFailure("a replay after \(start) shows what was not written") }
        }
      } else {
        reader.commit()
        guard reader.declareAsleep() else { continue }
        guard Waiting.readable(shared.wake[slot], milliseconds: patienceMilliseconds) else {
          throw StressFailure("reader \(slot) was not woken")
        }
        reader.declareAwake()
        EventFD.drain(shared.wake[slot])
      }
    }
    reader.commit()
    return replayed
  }
}
