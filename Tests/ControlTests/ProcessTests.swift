// /proc as text, and this process as an example.

import Glibc
import Testing

@testable import Control

@Suite struct ProcessTests {
  private static let rest =
    " S 4700 4711 4711 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 6 0 300 123456 77 18446744073709551615 1 1 0\n"

  @Test(
    "The figures are found whatever the executable calls itself",
    arguments: ["rig-control", "", "a b", ")", ") R 1 2 3", "((x) y)", "zwei\nzeilen"])
  func stat(_ name: String) throws {
    let stat = try #require(ProcStat("4711 (\(name))" + Self.rest))
    #expect(stat.parent == 4700)
    #expect(stat.userTicks == 150)
    #expect(stat.systemTicks == 50)
    #expect(stat.threads == 6)
    #expect(stat.startTicks == 300)
    #expect(stat.residentPages == 77)
    let units = KernelUnits(ticksPerSecond: 100, pageBytes: 4096, bootTime: 1000)
    let figures = ProcessFigures(stat, units: units, openDescriptors: nil)
    #expect(figures.cpuSeconds == 2)
    #expect(figures.residentBytes == 77 * 4096)
    #expect(figures.startTime == 1003)
  }

  @Test(
    "A line that is cut off or no numbers is no figure",
    arguments: [
      "", "4711 (a)", "4711 (a S 1 2", "4711 (a) S 4700 1 1 0 -1 1 1 2 3 4 150 50 7 8 20 0 6 0 300 123456",
      "4711 (a) S x 1 1 0 -1 1 1 2 3 4 150 50 7 8 20 0 6 0 300 123456 77",
      "4711 (a) S 1 1 1 0 -1 1 1 2 3 4 -150 50 7 8 20 0 6 0 300 123456 77",
    ])
  func refused(_ line: String) {
    #expect(ProcStat(line) == nil)
  }

  @Test("The boot time is a line of its own")
  func boot() {
    #expect(ProcStat.bootTime(in: "cpu 1 2\nintr 3\nbtime 1764000000\nprocesses 9\n") == 1_764_000_000)
    #expect(ProcStat.bootTime(in: "cpu 1 2\nbtime x\n") == nil)
    #expect(ProcStat.bootTime(in: "") == nil)
  }

  @Test("This process has plausible figures, and is nobody's child but its parent's")
  func live() throws {
    let proc = ProcFS()
    let figures = try #require(proc.figures(of: getpid(), childOf: getppid()))
    #expect(figures.residentBytes > 1_000_000)
    #expect(figures.threads >= 1)
    let open = try #require(figures.openDescriptors)
    #expect(open >= 3)
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    #expect(figures.maximumDescriptors == Int64(exactly: limit.rlim_cur))
    #expect(figures.cpuSeconds > 0)
    let now = Double(time(nil))
    #expect(figures.startTime <= now + 1 && figures.startTime > now - 86_400)
    #expect(proc.figures(of: getpid(), childOf: getpid()) == nil)
    #expect(proc.figures(of: 0, childOf: nil) == nil)
    #expect(proc.figures(of: -1, childOf: nil) == nil)
    #expect(proc.figures(of: .max, childOf: nil) == nil)
  }
}
