// Deaths, hangs and failed starts in the middle of a swap. Incumbent: the process that is swapped; heir: the one that comes beside it.
// The incumbent is the first process of its place, the heir the second.

import Foundation
import Testing

@Suite("16.9 Faults while workers are swapped", .serialized)
struct SwapDeathTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<4).flatMap { _ in Form.all }

  /// Steps of the incumbent in passing, and of the heir in taking.
  private static let giving = ["batchMarked", "batchSent", "takenReceived", "beforeForget"]
  private static let taking = [
    "batchReceived#2", "claimOpened#2", "claimOpened#2@3", "claimWon#2", "claimWon#2@5", "entryAdopted#2",
    "entryAdopted#2@7", "beforeTaken#2",
  ]

  /// Runs `body` when a process has stopped itself at the step of a swap, and judges the clients when the swap is over.
  private static func atStep(
    _ step: String, _ settings: [String: String] = [:],
    _ body: (CheckedClients, Gateway, _ incumbent: RunningProcess, _ stopped: RunningProcess) throws -> Void
  ) throws {
    try Gateway.run(Gateway.stopping(at: step, settings)) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(forms, ["a"])
      try clients.publishTogether("a", 3)
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      let stopped = try gateway.awaitStop(step)
      try clients.publishTogether("a", 3)
      try body(clients, gateway, try #require(before.first), stopped)
      try clients.publishTogether("a", 3)
      try gateway.awaitSuccessors(of: before, clients)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(step)
      try gateway.awaitConnections(clients.count)
      try eventually("one keeper is left") { gateway.keepers.count == 1 }
    }
  }

  @Test(
    "16.9 The one that is swapped dies at a step of passing: each connection has one owner", arguments: giving
  )
  func incumbentDies(step: String) throws {
    try Self.atStep(step) { _, _, incumbent, stopped in
      #expect(stopped == incumbent)
      incumbent.signal(SIGKILL)
    }
  }

  @Test("16.9 The heir dies at a step of taking: each connection has one owner", arguments: taking)
  func heirDies(step: String) throws {
    try Self.atStep(step) { _, _, incumbent, stopped in
      #expect(stopped != incumbent)
      stopped.signal(SIGKILL)
    }
  }

  @Test("16.9 Both die at once, at each step of either", arguments: giving + taking)
  func bothDie(step: String) throws {
    try Self.atStep(step) { _, gateway, _, _ in
      for process in gateway.workers(.connections) { process.signal(SIGKILL) }
    }
  }

  @Test(
    "16.9 The heir's heir dies as well, and its heir",
    arguments: ["claimWon", "batchReceived", "beforeTaken"])
  func heirsDie(step: String) throws {
    try Self.atStep("\(step)#2,\(step)#3") { _, gateway, _, stopped in
      stopped.signal(SIGKILL)
      let next = try eventually("its heir stops itself", within: 60) {
        gateway.stoppedWorker.flatMap { $0 == stopped ? nil : $0 }
      }
      next.signal(SIGKILL)
    }
  }

  @Test("16.9 The one that is swapped dies, and the next of its seat while it passes on what is left")
  func incumbentsHeirDies() throws {
    try Self.atStep("batchSent#1,batchSent#3") { _, gateway, _, stopped in
      stopped.signal(SIGKILL)
      // The heir may have taken everything that was in the air: then nothing is left to pass.
      let next = try eventually("the next one stops itself, or there is none", within: 60) {
        () -> RunningProcess?? in
        if let next = gateway.stoppedWorker, next != stopped { return .some(next) }
        return try gateway.metric("rig_retiring") == 0 ? .some(nil) : nil
      }
      next?.signal(SIGKILL)
    }
  }

  @Test("16.9 Kills at any moment of a swap, of either")
  func anyMoment() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "100"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      for round in 0..<12 {
        let incumbent = try #require(gateway.workers(.connections).first)
        let asked = try gateway.swaps() + gateway.swaps("failed")
        gateway.askForSwap()
        let heir = try gateway.awaitHeir(of: incumbent)
        for _ in 0..<round / 2 {
          try clients.publish("a")
          try clients.look()
        }
        (round % 2 == 0 ? incumbent : heir).signal(SIGKILL)
        try clients.pump("one is left, and serves") { _ in
          try gateway.workers(.connections).count == 1 && gateway.metric("rig_retiring") == 0
            && gateway.swaps() + gateway.swaps("failed") > asked
        }
        try gateway.waitUntilReady()
        try clients.publish("a")
      }
      try clients.pumpToEnd()
      clients.expectWhole()
      try gateway.awaitConnections(clients.count)
    }
  }

  // MARK: Hangs

  @Test(
    "16.9 An heir that stands still in a hand-over: what it hasn't claimed is taken back and served on",
    arguments: [("batchReceived#2", 0), ("claimOpened#2@4", 3), ("claimWon#2@4", 4)])
  func heirStands(step: String, claimed: Int) throws {
    try Self.atStep(step) { clients, _, _, stopped in
      try clients.publish("a")
      try clients.pump("all the others are served on") { clients in
        (0..<clients.count).count { clients.has("a", 7, at: $0) } >= clients.count - claimed
      }
      stopped.thaw()
    }
  }

  @Test("16.9 An heir that hangs is killed by the watchdog, and its heir goes on")
  func heirHangs() throws {
    try Self.atStep("claimWon#2@3", ["WATCHDOG_S": "5"]) { clients, _, _, stopped in
      try clients.pump("it is killed") { _ in stopped.state != "T" }
    }
  }

  @Test(
    "16.9 One that hangs while it retires is killed by the watchdog, and the rest is passed on",
    arguments: giving)
  func incumbentHangs(step: String) throws {
    try Self.atStep(step, ["WATCHDOG_S": "5"]) { clients, _, _, stopped in
      try clients.pump("it is killed") { _ in stopped.state != "T" }
    }
  }

  // MARK: Starts that fail

  @Test("16.9 An heir that can't be started: the incumbent serves on, and it is counted and logged")
  func noHeir() throws {
    let installation = try Installation()
    let launcher = ["/bin/sh", "-c", #"shift; exec "$0" "$@""#, installation.path("rig-supervisor")]
    try Gateway.run(["CONNECTION_WORKERS": "1"], launcher: launcher) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let before = gateway.workers(.connections)
      try installation.remove("rig-connections")
      gateway.askForSwap()
      try clients.pump("it has failed") { _ in try gateway.swaps("failed") == 1 }
      try installation.restore("rig-connections")
      // One that ends before it serves.
      try installation.replace("rig-connections", by: "exit 3")
      gateway.askForSwap()
      try clients.pump("it has failed again") { _ in try gateway.swaps("failed") == 2 }
      // Its executable has no name any more.
      #expect(before.allSatisfy { $0.state != nil })
      #expect(try gateway.swaps() == 0 && gateway.metric("rig_worker_restarts_total") == 0)
      try clients.publish("a")
      try clients.pumpToEnd()
      try installation.remove("rig-connections")
      try installation.restore("rig-connections")
      gateway.askForSwap()
      try clients.pump("it is swapped") { _ in
        try gateway.swaps() == 1 && gateway.metric("rig_retiring") == 0
          && gateway.workers(.connections).count == 1
      }
      #expect(before.allSatisfy { $0.state == nil })
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test(
    "16.9 An incumbent that dies while its heir can't be started has an heir of its own, when there is one again"
  )
  func noHeirAndNoIncumbent() throws {
    let installation = try Installation()
    let launcher = ["/bin/sh", "-c", #"shift; exec "$0" "$@""#, installation.path("rig-supervisor")]
    try Gateway.run(["CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "1000"], launcher: launcher) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let before = gateway.workers(.connections)
      try installation.replace("rig-connections", by: "exec sleep 1000")
      gateway.askForSwap()
      try eventually("something is started") { gateway.process.tree().contains { $0.name == "sleep" } }
      try installation.remove("rig-connections")
      try installation.restore("rig-connections")
      for worker in before { worker.signal(SIGKILL) }
      try clients.publish("a")
      try clients.pump("an heir serves, and nothing is left of the other") { _ in
        let now = gateway.workers(.connections)
        return now.count == 1 && now != before && !gateway.process.tree().contains { $0.name == "sleep" }
      }
      try gateway.waitUntilReady()
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  // MARK: The gateway's end

  @Test(
    "16.9 The supervisor is killed in a hand-over: everything ends", arguments: ["batchSent", "claimWon#2"])
  func supervisorKilled(step: String) throws {
    try Gateway.run(Gateway.stopping(at: step)) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      gateway.askForSwap()
      let stopped = try gateway.awaitStop()
      gateway.process.signal(SIGKILL)
      #expect(try gateway.process.wait() == .signalled(Int(SIGKILL)))
      stopped.thaw()
      try eventually("nobody is left") { gateway.process.tree().isEmpty }
      try clients.pump("all connections have ended") { $0.ended.count == $0.count }
    }
  }

  @Test("16.9 SIGTERM in a swap: clients are told, and everything ends in order", arguments: 0..<4)
  func stopped(moment: Int) throws {
    try Gateway.run { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      switch moment {
      case 0: break
      case 1: try eventually("an heir is started") { gateway.workers(.connections) != before }
      case 2: try eventually("one is swapped") { try gateway.swaps() >= 1 }
      default: try eventually("both are swapped") { try gateway.swaps() == 2 }
      }
      gateway.process.signal(SIGTERM)
      try clients.pump("all are told, and closed") { $0.ended.count == $0.count }
      for (index, end) in clients.ended {
        #expect(["close 1001", "last chunk"].contains(end), "client \(index): \(end)")
      }
      #expect(try gateway.process.wait() == .exited(0))
    }
  }
}
