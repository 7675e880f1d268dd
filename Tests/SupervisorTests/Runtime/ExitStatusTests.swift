// The supervisor's exit status.

import IPC
import Testing

@testable import Supervisor

@Suite struct ExitStatusTests {
  @Test(
    "the status says how the gateway ended",
    arguments: [
      (Outcome.stopped, 0),
      (.gaveUp, 75),
      (.failedToStart(.startTimedOut), 75),
      (.failedToStart(.diedStarting(.signal(11))), 75),
      (.failedToStart(.diedStarting(.status(1))), 75),
      (.failedToStart(.diedStarting(.notSpawned(errno: 2))), 75),
      (.failedToStart(.diedStarting(.status(71))), 71),
      (.failedToStart(.diedStarting(.status(72))), 72),
      (.failedToStart(.childFailedToStart(ChildID(index: 1), exit: .status(78))), 78),
    ] as [(Outcome, Int32)])
  func outcome(_ outcome: Outcome, _ status: Int32) {
    #expect(ExitStatus.of(outcome) == status)
  }

  @Test("what keeps it from starting has a status of its own")
  func errors() {
    #expect(SupervisorError.missingExecutable(path: "x", errno: 2).exitStatus == 72)
    #expect(SupervisorError.resources(.invalid("x")).exitStatus == 71)
    #expect(SupervisorError.tree(.duplicateID("x")).exitStatus == 70)
  }
}
