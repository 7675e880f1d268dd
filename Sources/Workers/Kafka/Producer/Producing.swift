// What this worker does for requests of frontends: producing their records, and passing on responses that come by Kafka. Both
// speak to the connection workers through one ring, "responses.streams".

import IPC
import Kit
import Links

final class Producing {
  let publications: PublicationServer
  let responses: ResponseIntake
  let moment = Moment()

  /// Of what waits for room in the response ring.
  private static let maximumUnsentBytes = 32 << 20

  /// nil if the manifest grants no response ring.
  ///
  /// - Parameter wake: signalled when librdkafka has something.
  init?(_ context: WorkerContext, wake: CInt) throws(IPCError) {
    guard let grant = context.manifest.ringWritten(for: .responses) else { return nil }
    let settings = context.settings
    let writer = try context.writer(of: grant)
    let maximumBytes = PublicationMessage.maximumBytes(
      bodyBytes: settings.maxEventBytes, headBytes: settings.maxRequestHeadBytes)
    let properties: [ClientProperty]
    do throws(ClientPropertyRefused) {
      properties = try ClientProperties.producer(settings, maximumBytes: maximumBytes)
    } catch {
      throw .invalid(error.description)
    }
    let moment = moment
    let outbox = Outbox(
      writer, maximumMessageBytes: maximumBytes, maximumBytes: Self.maximumUnsentBytes
    ) { moment.later($0) }
    publications = try PublicationServer(
      context, responses: grant, outbox: outbox, properties: properties, maximumBytes: maximumBytes,
      wake: wake)
    responses = ResponseIntake(
      outbox: outbox, epoch: context.manifest.gatewayEpoch, ring: grant, maximumBytes: settings.maxEventBytes,
      status: context.status,
      log: context.log)
  }

  /// Returns whether there may be more at once.
  func turn(_ now: UInt64) -> Bool {
    moment.run(now)
    return publications.turn(now)
  }
}

/// What is to be done a moment later, for a thread that sleeps in poll: a ring says nothing when it gets room.
final class Moment {
  /// Nanoseconds.
  private static let lengthNs: UInt64 = 1_000_000

  private var waiting: [() -> Void] = []
  /// When there is something to do; nil: nothing waits.
  private(set) var dueAt: UInt64?

  func later(_ body: @escaping () -> Void) {
    waiting.append(body)
    if dueAt == nil { dueAt = MonotonicTime.now() + Self.lengthNs }
  }

  /// Does what is due.
  func run(_ now: UInt64) {
    guard let dueAt, now >= dueAt else { return }
    let all = waiting
    waiting = []
    self.dueAt = nil
    for body in all { body() }
  }
}
