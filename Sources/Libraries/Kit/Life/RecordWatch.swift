// Which record a worker is working on, noted in its ledger where its heir finds it, and which ones are passed over because processes of
// the place have died of them. One bad record then costs two processes, and not all that ever come.
//
//   next record ─► begin: two stores ─► its effect ─► end of the turn's reading: one store
//   death by a fault or a hang ─► heir: died(of:) ─► the second time: passed over from then on, live and in replays

import IPC

/// Belongs to the worker's loop; one for all rings that it reads.
public final class RecordWatch {
  /// Processes that may die of a record.
  public static let mostDeaths = 2

  private let ledger: Ledger
  private let plan: LedgerPlan
  private var poison: [LedgerSuspect.Record] = []

  public init(_ ledger: Ledger) {
    self.ledger = ledger
    plan = ledger.plan
    note()
  }

  private func note() { poison = plan.deaths.filter { $0.count >= Self.mostDeaths }.map(\.record) }

  /// A process has died over it, of a fault or because it hung. Before it is read again.
  public func died(of record: LedgerSuspect.Record) {
    plan.countDeath(of: record)
    note()
  }

  /// Whether too many processes have died of it.
  public func isPoison(_ ring: UInt32, _ sequence: UInt64) -> Bool {
    guard !poison.isEmpty else { return false }
    return poison.contains { $0.ring == ring && $0.sequence == sequence }
  }

  /// The record is worked on from here on.
  func begin(_ ring: UInt32, _ sequence: UInt64) { plan.suspect(ring: ring, sequence: sequence) }

  /// None is.
  func end() { plan.noRecord() }
}
