// What a supervision tree is made of: specifications, in the terms of Erlang/OTP's `supervisor` behaviour.
// Values only. Nothing here knows about processes, descriptors or the clock; the tree (SupervisionTree.swift)
// interprets them, the runtime maps a worker's id to an executable.
//
//   NodeSpec (strategy, intensity, period)
//   ├── ChildSpec worker      one process
//   └── ChildSpec supervisor  a NodeSpec of its own: logical, lives inside this process

/// A span of time or a reading of CLOCK_MONOTONIC, in nanoseconds.
typealias Nanoseconds = UInt64

extension Nanoseconds {
  static let perSecond: Nanoseconds = 1_000_000_000
  static let perMillisecond: Nanoseconds = 1_000_000

  static func seconds(_ count: Int) -> Nanoseconds { Nanoseconds(Swift.max(0, count)) * perSecond }
  func addingSaturating(_ span: Nanoseconds) -> Nanoseconds {
    let (sum, overflow) = addingReportingOverflow(span)
    return overflow ? .max : sum
  }

  static func milliseconds(_ count: Int) -> Nanoseconds { Nanoseconds(Swift.max(0, count)) * perMillisecond }
}

struct ChildSpec: Equatable, Sendable {
  /// When a child that ended by itself is started again.
  enum Restart: Equatable, Sendable {
    case permanent
    /// Only after an abnormal end: anything but exit status 0. A supervisor that gave up ends, as in OTP,
    /// with reason `shutdown`, which is normal: a transient supervisor is then not restarted.
    case transient
    /// Never, and it is also left out when a group is restarted.
    case temporary
  }

  enum Shutdown: Equatable, Sendable {
    /// SIGKILL at once.
    case brutalKill
    /// SIGTERM, and SIGKILL when it has not ended in time.
    case timeout(Nanoseconds)
    /// SIGTERM, and wait as long as it takes.
    case infinity
  }

  enum Kind: Equatable, Sendable {
    /// A process. It counts as failed to start when it has not reported ready in time (nil: waits for ever).
    case worker(startTimeout: Nanoseconds?)
    /// A logical supervisor: it has started when all its children have.
    case supervisor(NodeSpec)
  }

  let id: String
  let restart: Restart
  let shutdown: Shutdown
  let kind: Kind
  /// Whether its restarts count that are due to a SIGKILL from outside once it serves: false for who loses nothing by it. They are
  /// nobody's fault, and as many as there are can't tell that something is wrong here.
  var countsKills = true
  /// How long a process that has been replaced has to pass on what it serves, before it is killed. nil: the child can't be swapped.
  var retirement: Nanoseconds?
}

/// A supervisor: its children in start order and what it does when one of them ends.
struct NodeSpec: Equatable, Sendable {
  /// Who is restarted with a child that has to be restarted.
  enum Strategy: Equatable, Sendable {
    /// Nobody else.
    case oneForOne
    /// Every child of the node.
    case oneForAll
    /// Every child that comes after it in start order.
    case restForOne
  }

  let strategy: Strategy
  /// Restarts of all children together that are allowed within `period`; one more and the node gives up.
  let intensity: Int
  let period: Nanoseconds
  let children: [ChildSpec]
  /// Whether children that have to be stopped are told all at once, as those of OTP's `simple_one_for_one`: for a pool
  /// whose members take their time and don't need each other.
  var stopsTogether = false
  /// Restarts of one and the same child that are allowed within `period`, beside `intensity`; one more and the node gives
  /// up. nil: as many as `intensity` allows, as in OTP. For a pool: many members that fail once each, from one cause, are
  /// no reason to give up, and one place of many that fails again and again is.
  var childIntensity: Int?
}

enum SpecError: Error, Equatable, CustomStringConvertible {
  case duplicateID(String)
  case negativeIntensity(node: String, Int)
  case negativeChildIntensity(node: String, Int)
  case zeroPeriod(node: String)
  /// Something must follow a process at its seat, whatever it ends by.
  case swapsNotPermanent(String)

  var description: String {
    switch self {
    case .duplicateID(let id): "child id \"\(id)\" is used twice in one supervisor; ids must be unique there"
    case .negativeIntensity(let node, let value):
      "restart intensity of supervisor \"\(node)\" is \(value); expected 0 or more"
    case .negativeChildIntensity(let node, let value):
      "restart intensity per child of supervisor \"\(node)\" is \(value); expected 0 or more"
    case .zeroPeriod(let node): "restart period of supervisor \"\(node)\" is 0; expected more than 0 ns"
    case .swapsNotPermanent(let id): "child \"\(id)\" can be swapped; expected a permanent worker"
    }
  }
}
