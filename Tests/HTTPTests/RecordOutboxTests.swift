import Glibc
import IPC
import Kit
import NIOCore
import Testing

@testable import HTTP

@Suite("Outbox of a ring")
struct RecordOutboxTests {
  private static let type = ExchangeFrame.answerType

  /// A ring with one reader, an outbox into it, and what the outbox wants done later.
  private final class Bench {
    let ring: Descriptor
    let wake: Descriptor
    let reader: RingReader
    let outbox: RecordOutbox
    private let delayed = Delayed()

    private final class Delayed {
      var bodies: [() -> Void] = []
    }

    init(capacity: Int) throws {
      ring = try Ring.create(name: "outbox", capacity: capacity, readers: 1)
      wake = try EventFD.create()
      reader = try RingReader(attaching: ring.rawValue, slot: 0)
      let writer = try RingWriter(attaching: ring.rawValue, wake: [wake.rawValue])
      outbox = RecordOutbox(writer, maximumBytes: 1 << 20) { [delayed] in delayed.bodies.append($0) }
    }

    func later() {
      let bodies = delayed.bodies
      delayed.bodies = []
      for body in bodies { body() }
    }

    /// The bodies of the frames that are visible by now.
    func received() throws -> [UInt8] {
      var bytes: [UInt8] = []
      while let record = try reader.next() {
        let header = try ExchangeFrame.Header(record.bytes)
        #expect(header.isBody && header.correlation == 7)
        bytes += record.bytes.dropFirst(ExchangeFrame.headerBytes)
      }
      reader.commit()
      return bytes
    }
  }

  private static func body(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 / 7) } }

  @Test("A body arrives whole, in frames of a bounded size")
  func whole() throws {
    let bench = try Bench(capacity: 1 << 20)
    let body = Self.body(200_000)
    #expect(bench.outbox.send(ByteBuffer(bytes: body), as: Self.type, target: 0, correlation: 7))
    #expect(!bench.outbox.isBlocked)
    // Compared by hand: a difference of so many octets would take minutes to print.
    let isWhole = try bench.received() == body
    #expect(isWhole)
  }

  @Test("Of a body that doesn't fit, what fits is visible at once, and the rest when there is room")
  func parted() throws {
    let bench = try Bench(capacity: 64 << 10)
    let body = Self.body(150_000)
    #expect(bench.outbox.send(ByteBuffer(bytes: body), as: Self.type, target: 0, correlation: 7))
    #expect(bench.outbox.isBlocked)
    var received = try bench.received()
    #expect(!received.isEmpty && received.count < body.count)
    for _ in 0..<10 where bench.outbox.isBlocked {
      bench.later()
      received += try bench.received()
    }
    let isWhole = received == body
    #expect(isWhole)
  }
}
