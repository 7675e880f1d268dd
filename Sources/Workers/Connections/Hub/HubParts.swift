// What a hub is made of and what it needs of its surroundings, so that a test can give it others.

import HTTP
import IPC
import Kit
import Links
import Logging
import Settings

struct HubParts {
  /// Number of this connection worker.
  var slot: Int
  /// Of this worker's status page.
  var generation: UInt64
  /// Which of the processes this is that have served the place.
  var incarnation: UInt64
  var settings: Settings
  var tokens: TokenCipher
  var events: EventRings
  var exchange: RequestExchange
  var authority: TokenAuthority
  /// What the control worker says; nil only in tests that have none.
  var state: StateFeed?
  /// Where connections are reported to; nil only in tests that have none.
  var presence: PresenceReporter?
  /// Has services called; nil: none is configured.
  var calls: CallClient?
  /// Has records produced and takes services' responses in; nil only in tests that have none.
  var publications: PublicationClient?
  /// How many connections a user and an address may have; nil: any number.
  var limits: ConnectionLimits?
  var metrics: WorkerMetrics
  /// For what clients send by WebSocket; the front's too.
  var budget: AssemblyBudget
  var log: Logger
  var environment: HubEnvironment
}

struct HubEnvironment {
  /// Calls the closure on the loop, behind what it is doing now and before it waits.
  var schedule: (@escaping () -> Void) -> Void
  /// Lets the loop call `Hub.scheduleTurn` after it has looked at its sockets.
  var wakeAgain: () -> Void
  /// The worker lives.
  var beat: () -> Void
  /// A ring is corrupt: its id in the manifest.
  var reportCorrupt: (RingReport) -> Void
  var random = RandomSource.system
  var time = TimeSource()
}

/// A poll that came in at worker `from`.
struct RemotePoll: Hashable {
  let from: UInt16
  let correlation: UInt64
}
