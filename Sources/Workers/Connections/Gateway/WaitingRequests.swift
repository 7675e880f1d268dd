// Requests of this worker that wait for a service's response, which comes later and by another way. Bounded in number; each has an
// id that services answer by, and is answered once: what comes late, twice, or under an id that was never given out finds nothing
// here and is counted. Its place (MAX_WAITING_REQUESTS) is its own until its client has taken the response, or has gone.

import HTTP
import IPC
import Kit
import Links

/// Belongs to the worker's loop.
final class WaitingRequests {
  /// Called once: with the response, whose place is taken until `end`; or with nil when none came in time.
  typealias Waiter = (ServiceResponse?) -> Void

  /// Names a request that waits.
  struct Ticket {
    /// As services know it.
    let id: String
    let number: UInt64
  }

  private struct Waiting {
    let waiter: Waiter
    let holder: PlaceHolder
    /// Ends the time-out; nil: its time hasn't begun.
    var stopClock: (() -> Void)?
    /// Its client hasn't taken the response yet.
    var isAnswered = false
  }

  private var places: CountedPlaces
  private let seal: CorrelationSeal
  /// Calls the closure on the loop after so many milliseconds; what is returned prevents that.
  private let schedule: (_ ms: Int, _ body: @escaping () -> Void) -> () -> Void
  private var waiting: [UInt64: Waiting] = [:]
  private var nextNumber: UInt64
  private let gauge: Metric?
  private let results: [PublicationClient.Source: (delivered: Metric?, unknown: Metric?)]

  init(
    limits: PlaceLimits, seal: CorrelationSeal, generation: UInt64, status: StatusPage, worker: String,
    schedule: @escaping (_ ms: Int, _ body: @escaping () -> Void) -> () -> Void
  ) {
    places = CountedPlaces(
      limits, setting: "MAX_WAITING_REQUESTS", "requests wait for a response", status)
    self.seal = seal
    self.schedule = schedule
    nextNumber = Correlation.first(generation: generation)
    gauge = status.metric(.gauge, "rig_waiting_requests", labels: [("worker", worker)])
    func result(_ source: PublicationClient.Source, _ text: String) -> Metric? {
      status.metric(
        .counter, "rig_responses_total", labels: [("result", text), ("source", source.rawValue)])
    }
    results = Dictionary(
      uniqueKeysWithValues: [PublicationClient.Source.kafka, .http].map { source in
        (source, (result(source, "delivered"), result(source, "unknown")))
      })
  }

  /// Calls the closure after so many milliseconds; what is returned prevents that.
  func after(ms: Int, _ body: @escaping () -> Void) -> () -> Void { schedule(ms, body) }

  /// An id under which nobody waits; nil only if OpenSSL fails.
  func unusedID() -> String? {
    defer { nextNumber &+= 1 }
    return try? seal.seal(nextNumber)
  }

  /// A request waits from now on, for as long as it likes until `startClock`; or too many wait already.
  func begin(for holder: PlaceHolder, _ waiter: @escaping Waiter) throws(CountedPlaces.Refusal) -> Ticket {
    try places.take(holder)
    let number = nextNumber
    guard let id = unusedID() else {
      places.giveBack(holder)
      throw CountedPlaces.Refusal(
        response: .unavailable(retryAfterSeconds: 1, "no correlation id could be made"))
    }
    waiting[number] = Waiting(waiter: waiter, holder: holder)
    gauge?.set(Int64(waiting.count))
    return Ticket(id: id, number: number)
  }

  /// From now on it waits for so many milliseconds.
  func startClock(_ ticket: Ticket, ms: Int) {
    guard waiting[ticket.number]?.isAnswered == false else { return }
    waiting[ticket.number]?.stopClock = schedule(ms) { [weak self] in
      self?.take(ticket.number)?.waiter(nil)
    }
  }

  /// It waits no more, and gives its place back; the waiter isn't called.
  func end(_ ticket: Ticket) { _ = take(ticket.number) }

  /// A response has come. False: nobody waits for it.
  func receive(_ response: ServiceResponse, from source: PublicationClient.Source) -> Bool {
    guard let number = seal.open(response.correlation), let found = waiting[number], !found.isAnswered else {
      results[source]?.unknown?.add()
      return false
    }
    found.stopClock?()
    waiting[number]?.stopClock = nil
    waiting[number]?.isAnswered = true
    results[source]?.delivered?.add()
    found.waiter(response)
    return true
  }

  private func take(_ number: UInt64) -> Waiting? {
    guard let found = waiting.removeValue(forKey: number) else { return nil }
    found.stopClock?()
    places.giveBack(found.holder)
    gauge?.set(Int64(waiting.count))
    return found
  }
}
