// Two workers and the rings between them, without processes: the test's own thread turns both.

import IPC
import Kit
import Testing

@testable import Links

/// One direction of a link: a ring of worker `connections.0` that `readers` read.
final class LinkBench {
  let grant: RingGrant
  let status: StatusPage
  private let ring: Descriptor
  private let page: Descriptor
  private(set) var delayed: [() -> Void] = []

  static let writer = WorkerIdentity.connections(0)
  static let readers = [WorkerIdentity.proxies(0), .control]

  /// - Parameter readers: each of them must read, or the ring stays full.
  init(capacity: Int = 1 << 20, readers: Int = 1) throws {
    ring = try Ring.create(name: "link", capacity: capacity, readers: readers)
    page = try StatusPage.create(name: "page")
    status = try StatusPage(attaching: page.rawValue)
    grant = RingGrant(
      id: 7, purpose: .calls, writer: Self.writer,
      readers: Self.readers.prefix(readers).enumerated().map { .init($1, slot: $0) }, fd: ring.rawValue)
  }

  /// The writer, born anew.
  func outbox(maximumMessageBytes: Int = 1 << 20, maximumBytes: Int = 1 << 22) throws -> Outbox {
    Outbox(
      try RingWriter(attaching: grant.fd, wake: grant.wake), maximumMessageBytes: maximumMessageBytes,
      maximumBytes: maximumBytes
    ) { [unowned self] in delayed.append($0) }
  }

  /// The reader, born anew.
  func inbox(_ reader: WorkerIdentity = readers[0], maximumBytes: Int = 1 << 20) throws -> Inbox {
    Inbox(try RingSet(grants: [grant], worker: reader, status: status), maximumBytes: maximumBytes)
  }

  /// The moment has passed.
  func later() {
    let bodies = delayed
    delayed = []
    for body in bodies { body() }
  }

  /// The value of a series on the reader's page.
  func metric(_ series: String) -> Int64? { status.metrics().first { $0.series == series }?.value }
}

extension Inbox {
  /// Everything that is there for this reader, decoded as `Payload`.
  func messages<Payload: LinkPayload>(as type: Payload.Type) -> [Payload] {
    var all: [Payload] = []
    while serve({ (message) throws(RecordFault) in all.append(try message.decoded(as: Payload.self)) }) {}
    return all
  }
}

/// The bytes of a payload, and what is read from bytes.
enum Wire {
  static func bytes(_ payload: some LinkPayload) -> [UInt8] {
    var fields = FieldWriter()
    payload.append(to: &fields)
    return fields.bytes
  }

  static func envelope(_ payload: some LinkPayload) -> Envelope {
    Envelope(payload.kind, target: 0, correlation: 1, value: payload.value)
  }

  static func read<Payload: LinkPayload>(
    _ envelope: Envelope, _ bytes: [UInt8], as type: Payload.Type
  ) -> Result<Payload, RecordFault> {
    bytes.withUnsafeBytes { raw in
      Result { () throws(RecordFault) in
        try LinkMessage(ring: 0, envelope: envelope, payload: raw).decoded(as: Payload.self)
      }
    }
  }
}
