// Processes in reserve, as far as it can be seen without real workers: those that fail.

import Glibc
import TestSupport
import Testing

@testable import IPC
@testable import Supervisor

@Suite struct SpareWorkersTests {
  @Test func `16.8 a spare that fails is started again after longer and longer pauses, and is no restart`()
    throws
  {
    let script = #"[ -n "$RIG_SPARE_FD" ] && { echo >> $0.spares; exit 1; }; exec sleep 1000"#
    try RuntimeBench.run(
      try RuntimeBench(scripts: [.connections: script]) {
        $0.warmSpares = 1
        $0.restartIntensity = 0
      }
    ) { bench in
      try bench.becomeReady()
      let before = SharedClock.now()
      try bench.waitForLine("spare worker has ended", count: 3)
      // One second behind the first one, two behind the second one.
      #expect(SharedClock.now() - before >= .seconds(3))
      #expect(bench.lines("worker is started", about: "connections.0").count == 1)
    }
  }

  @Test func `16.8 an ended gateway has no spare`() throws {
    let script = #"[ -n "$RIG_SPARE_FD" ] && { echo $$ > $0.spare; exec sleep 1000; }; exec sleep 1000"#
    try RuntimeBench.run(
      try RuntimeBench(scripts: [.connections: script]) { $0.warmSpares = 1 }
    ) { bench in
      try bench.becomeReady()
      let spare = try bench.whileRunning("a spare has started") {
        try? pid_t(
          String(contentsOfFile: bench.directory.file("rig-connections.spare"), encoding: .utf8)
            .dropLast())
      }
      #expect(try bench.metric("rig_spares") == 1)
      #expect(kill(spare, 0) == 0)
      bench.signal(SIGTERM)
      _ = try bench.waitForEnd()
      #expect(kill(spare, 0) < 0 && errno == ESRCH)
    }
  }

  @Test func `16.8 another file, or another content, isn't the same executable`() throws {
    let directory = try TestDirectory()
    try directory.script("a", "exit")
    let path = directory.file("a")
    let before = ExecutableFile(path)
    #expect(before != nil && before == ExecutableFile(path))
    try directory.script("b", "exit")
    #expect(rename(directory.file("b"), path) == 0)
    #expect(ExecutableFile(path) != before)
    unlink(path)
    #expect(ExecutableFile(path) == nil)
  }
}
