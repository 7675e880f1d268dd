// What is kept of bodies and messages that aren't whole, or whole and not answered yet: the bytes of one worker, and of each of its
// connections. Pure accounting, on the worker's loop.
//
//   AssemblyHold (one body or message) ──▶ AssemblyShare (connection) ──▶ AssemblyBudget (worker)
//        announce: its whole length counts          keeps to its bound          only what has come counts
//
// For its connection a body counts with the length that its head has announced, so that of many uploads over one connection those
// that were let in can be completed. For the worker it counts with what has come: else heads alone would use the budget up.
// A last part of the budget is only for connections that hold little: whoever fills the rest keeps no small body of others out.

import IPC
import Kit
import NIOCore
import NIOHTTP1
import Settings

/// Bytes that a worker keeps of what is being assembled. Belongs to its loop.
public final class AssemblyBudget {
  /// What a connection may hold of the last part of the budget, together with all else that it holds.
  static let littleBytes = 16 * 1024
  /// The part of the budget, as one divided by this, of which a connection may hold only little.
  static let lastPart = 4

  /// Of one connection; never less than the largest body that is taken.
  public let connectionBytes: Int
  /// Of all connections; never less than twice the largest body that is taken.
  public let workerBytes: Int
  /// Held now.
  public private(set) var usedBytes = 0

  private let gauge: Metric?
  private let refusedByConnection: Metric?
  private let refusedByWorker: Metric?

  /// - Parameters:
  ///   - largestBytes: the largest body or message that is taken.
  ///   - worker: the value of the label `worker`.
  public init(
    connectionBytes: Int, workerBytes: Int, largestBytes: Int, status: StatusPage? = nil, worker: String = ""
  ) {
    self.connectionBytes = max(connectionBytes, largestBytes)
    self.workerBytes = max(workerBytes, 2 * largestBytes)
    gauge = status?.metric(.gauge, "rig_assembly_bytes", labels: [("worker", worker)])
    func refused(_ setting: String) -> Metric? {
      status?.metric(.counter, "rig_assembly_refused_total", labels: [("limit", setting)])
    }
    refusedByConnection = refused(AssemblyRefusal.connectionSetting)
    refusedByWorker = refused(AssemblyRefusal.workerSetting)
  }

  /// As it is configured; `status`: where it is shown.
  public convenience init(_ settings: Settings, status: StatusPage? = nil, worker: String = "") {
    self.init(
      connectionBytes: settings.maxAssemblyBytesPerConnection,
      workerBytes: settings.maxAssemblyBytesPerWorker, largestBytes: settings.maxEventBytes, status: status,
      worker: worker)
  }

  fileprivate func take(_ bytes: Int, held: Int) -> AssemblyRefusal? {
    let mostBytes =
      held + bytes <= Self.littleBytes ? workerBytes : workerBytes - workerBytes / Self.lastPart
    guard usedBytes + bytes <= mostBytes else {
      refusedByWorker?.add()
      return .worker(limitBytes: workerBytes)
    }
    usedBytes += bytes
    gauge?.set(Int64(usedBytes))
    return nil
  }

  fileprivate func giveBack(_ bytes: Int) {
    usedBytes -= bytes
    gauge?.set(Int64(usedBytes))
  }

  fileprivate func refuseConnection() -> AssemblyRefusal {
    refusedByConnection?.add()
    return .connection(limitBytes: connectionBytes)
  }
}

/// Why no more may be kept.
public enum AssemblyRefusal: Equatable, Sendable {
  case connection(limitBytes: Int)
  case worker(limitBytes: Int)

  static let connectionSetting = "MAX_ASSEMBLY_BYTES_PER_CONNECTION"
  static let workerSetting = "MAX_ASSEMBLY_BYTES_PER_WORKER"
  /// What is refused may fit a moment later.
  public static let retryAfterSeconds = 1

  /// For an answer of HTTP: 429 for what a client can help, 503 for what it can't.
  public var status: HTTPResponseStatus {
    switch self {
    case .connection: .tooManyRequests
    case .worker: .serviceUnavailable
    }
  }

  /// Names the limit and its setting.
  public var detail: String {
    switch self {
    case .connection(let limit):
      "more than \(limit) bytes of unanswered bodies on this connection (\(Self.connectionSetting))"
    case .worker(let limit):
      "this worker has too much to assemble, its limit is \(limit) bytes (\(Self.workerSetting))"
    }
  }
}

extension HTTPResponse {
  /// With the time after which to try again.
  public init(_ refusal: AssemblyRefusal) {
    self = .problem(
      refusal.status, refusal.detail, headers: ["retry-after": String(AssemblyRefusal.retryAfterSeconds)])
  }
}

/// What one connection holds of the budget.
public final class AssemblyShare {
  private let budget: AssemblyBudget
  /// What has come.
  public private(set) var heldBytes = 0
  /// What has come or is announced.
  private var promisedBytes = 0

  public init(_ budget: AssemblyBudget) { self.budget = budget }

  fileprivate func promise(_ bytes: Int) -> AssemblyRefusal? {
    guard promisedBytes + bytes <= budget.connectionBytes else { return budget.refuseConnection() }
    promisedBytes += bytes
    return nil
  }

  fileprivate func take(_ bytes: Int) -> AssemblyRefusal? {
    if let refusal = budget.take(bytes, held: heldBytes) { return refusal }
    heldBytes += bytes
    return nil
  }

  fileprivate func giveBack(_ bytes: Int, promised: Int) {
    heldBytes -= bytes
    promisedBytes -= promised
    if bytes > 0 { budget.giveBack(bytes) }
  }
}

/// What one body or message holds of its connection's share: until it is released, or nobody has this any more.
///
/// `@unchecked Sendable`: it lies in values that are; it is used on the loop only.
public final class AssemblyHold: @unchecked Sendable {
  private let share: AssemblyShare
  private var heldBytes = 0
  private var promisedBytes = 0

  public init(_ share: AssemblyShare) { self.share = share }

  deinit { release() }

  /// So many bytes will come in all. Returns why they may not.
  public func announce(_ bytes: Int) -> AssemblyRefusal? {
    guard bytes > promisedBytes else { return nil }
    if let refusal = share.promise(bytes - promisedBytes) { return refusal }
    promisedBytes = bytes
    return nil
  }

  /// So many bytes are kept from now on, instead of as many as before. Returns why they may not be; then it holds what it held before.
  public func resize(to bytes: Int) -> AssemblyRefusal? {
    if bytes > heldBytes {
      if let refusal = announce(bytes) { return refusal }
      if let refusal = share.take(bytes - heldBytes) { return refusal }
    } else if bytes < heldBytes {
      share.giveBack(heldBytes - bytes, promised: 0)
    }
    heldBytes = bytes
    return nil
  }

  /// Nothing is kept any more.
  public func release() {
    guard promisedBytes > 0 else { return }
    share.giveBack(heldBytes, promised: promisedBytes)
    heldBytes = 0
    promisedBytes = 0
  }
}
