// Numbers of inherited descriptors.

import Testing

@testable import Supervisor

@Suite struct DescriptorPlanTests {
  @Test("grants are numbered from the base, the same descriptor always alike")
  func grants() {
    var plan = DescriptorPlan(base: 50)
    let numbers = [7, 9, 7, 8].map { plan.grant($0) }
    #expect(numbers == [50, 51, 50, 52])
    #expect(plan.sources == [7, 9, 8])
    #expect(plan.targets == [50, 51, 52])
  }

  @Test(
    "the manifest is copied first, so that no grant can overwrite it",
    arguments: [3, 50, 51, 52, 60] as [CInt])
  func manifest(_ number: CInt) {
    var plan = DescriptorPlan(base: 50)
    _ = plan.grant(7)
    _ = plan.grant(9)
    let target = plan.grantFresh([number])[0]
    #expect(plan.sources.first == number)
    #expect(plan.targets.first == target)
    // dup2 onto itself would leave it close-on-exec, and onto a grant's number would lose it.
    #expect(target != number)
    #expect(!plan.targets.dropFirst().contains(target))
    // Nothing is overwritten before it has been copied.
    for (index, written) in plan.targets.enumerated() {
      #expect(!plan.sources[(index + 1)...].contains(written))
    }
  }

  @Test(
    "16.1 what is opened for one process is copied before anything can overwrite it, however it is numbered",
    arguments: [[], [3], [52], [53, 52], [50, 51, 54], [90, 53]] as [[CInt]],
    [4, 50, 52, 53, 54, 55, 91]
      as [CInt])
  func fresh(_ couriers: [CInt], _ manifest: CInt) {
    guard !couriers.contains(manifest) else { return }
    var plan = DescriptorPlan(base: 50)
    _ = plan.grant(7)
    _ = plan.grant(9)
    let numbers = plan.grantFresh(couriers) + plan.grantFresh([manifest])
    #expect(zip(couriers + [manifest], numbers).allSatisfy { $0 != $1 })
    #expect(Set(plan.targets).count == plan.targets.count)
    for (index, written) in plan.targets.enumerated() {
      #expect(!plan.sources[(index + 1)...].contains(written))
    }
    for (source, number) in zip(couriers + [manifest], numbers) {
      let place = plan.targets.firstIndex(of: number)
      #expect(place.map { plan.sources[$0] } == source)
    }
  }

  @Test("a worker's environment says nothing of systemd, and nothing of another manifest")
  func environment() {
    let lines = WorkerEnvironment.lines(from: [
      "PATH": "/bin", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "2",
      "RIG_MANIFEST_FD": "9", "RIG_SPARE_FD": "9",
      "A": "b=c",
    ])
    #expect(lines == ["A=b=c", "PATH=/bin", "SWIFT_BACKTRACE=enable=no"])
    let chosen = WorkerEnvironment.lines(from: ["SWIFT_BACKTRACE": "enable=yes"])
    #expect(chosen == ["SWIFT_BACKTRACE=enable=yes"], "16.8 who wants to know the place of a fault says so")
    #expect(WorkerEnvironment.manifestLine(12) == "RIG_MANIFEST_FD=12")
  }
}
