// How many connections the limit on descriptors (RLIMIT_NOFILE) leaves room for. A worker that runs out of descriptors can't even
// tell a client that it is full: so limits that would take it there are lowered, and some room is kept for those who are refused.
//
// What is kept is no setting: it follows from what a worker itself opens, so another value is either too small to refuse anybody in
// order or the same as a lower MAX_CONNECTIONS_PER_WORKER.

import Glibc

public struct DescriptorBudget: Equatable, Sendable {
  /// Kept for files, and for connections that are just being accepted.
  static let reserve = 40
  /// What a worker opens for itself at its start: epoll sets, signals, log.
  static let own = 32
  /// One in so many connections is kept for requests that open nothing, and for refusals.
  private static let shareForRequests = 16

  /// Connections that there are descriptors for.
  public let connections: Int

  private init(limit: Int, held: Int) {
    connections = max(Self.shareForRequests, limit - held - Self.reserve)
  }

  /// That of a worker which is still to be started.
  ///
  /// - Parameters:
  ///   - limit: descriptors that it may have.
  ///   - shared: those that it will be given.
  public init(limit: Int, shared: Int) {
    self.init(limit: limit, held: shared + Self.own)
  }

  /// This process's, with what it holds open now as what it needs besides connections.
  public static var ofThisProcess: DescriptorBudget {
    DescriptorBudget(limit: processLimit, held: openDescriptors)
  }

  /// Of `connections`, those that may stay open.
  public var longLived: Int { connections - connections / Self.shareForRequests }

  /// Descriptors that this process may have: the soft limit.
  public static var processLimit: Int {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
    return Int(clamping: limit.rlim_cur)
  }

  private static var openDescriptors: Int {
    guard let directory = opendir("/proc/self/fd") else { return 0 }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count
  }
}

extension Settings {
  /// Lowers what there are too few descriptors for. Returns what is lowered, for people; nil: nothing had to be.
  public mutating func lower(to budget: DescriptorBudget, limit: Int) -> String? {
    let wanted = maxOpenConnectionsPerWorker
    guard wanted > budget.longLived else { return nil }
    maxOpenConnectionsPerWorker = budget.longLived
    return
      "MAX_CONNECTIONS_PER_WORKER is \(wanted), more than the limit of \(limit) descriptors (RLIMIT_NOFILE) has room for: "
      + "\(budget.longLived) are taken"
  }
}
