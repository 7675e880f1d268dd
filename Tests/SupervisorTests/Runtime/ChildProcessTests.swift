// Child processes: what they inherit, how their end is seen, and that none is left behind.

import CLinux
import Foundation
import TestSupport
import Testing

@testable import Supervisor

/// Everything that starts processes runs one after the other: a file that is being written, or a pipe that is being
/// made, must not be caught by a process that another test starts at that moment.
@Suite(.serialized) struct ProcessSuite {}

extension ProcessSuite {
  @Suite struct ChildProcessTests {
    private static func shell(_ script: String, _ plan: DescriptorPlan = DescriptorPlan(base: 100)) throws
      -> ChildProcess
    {
      try ChildProcess(
        executable: "/bin/sh", arguments: ["-c", script],
        environment: ["PATH=/bin:/usr/bin", "GREETING=hello"],
        descriptors: plan)
    }

    /// Waits on the pidfd, as the event loop does.
    private static func waitForEnd(_ process: borrowing ChildProcess) throws -> Exit {
      let pidfd = process.pidfd
      try eventually("the process has ended") {
        var entry = pollfd(fd: pidfd, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 1
      }
      guard let end = process.end else { throw TestFailure("readable, but not ended") }
      return end
    }

    private static func isGone(_ pid: pid_t) -> Bool { kill(pid, 0) < 0 && errno == ESRCH }

    @Test(
      "an exit status is seen, as often as one looks, until the process is reaped",
      arguments: [0, 3, 255] as [Int32])
    func exitStatus(_ status: Int32) throws {
      let process = try Self.shell("exit \(status)")
      #expect(try Self.waitForEnd(process) == .status(status))
      let again = process.end
      #expect(again == .status(status))
      let pid = process.pid
      process.reap()
      #expect(Self.isGone(pid))
    }

    @Test("a signal is seen as the end", arguments: [SIGKILL, SIGTERM, SIGSEGV])
    func signal(_ number: CInt) throws {
      let process = try Self.shell("kill -\(number) $$")
      #expect(try Self.waitForEnd(process) == .signal(number))
      process.reap()
    }

    @Test("a running process has no end, and can be signalled")
    func terminate() throws {
      let process = try Self.shell("exec sleep 1000")
      let end = process.end
      #expect(end == nil)
      process.signal(SIGTERM)
      #expect(try Self.waitForEnd(process) == .signal(SIGTERM))
      process.reap()
    }

    @Test("letting a process go kills and reaps it, with what it has started")
    func drop() throws {
      let pipe = try TestPipe()
      let directory = try TestDirectory()
      var plan = DescriptorPlan(base: 1)
      _ = plan.grant(pipe.input)
      var pid: pid_t = 0
      do {
        let process = try Self.shell("sleep 1000 & : > \(directory.path)/both; exec sleep 1000", plan)
        pid = process.pid
        try eventually("both processes run") { access("\(directory.path)/both", F_OK) == 0 }
      }
      #expect(Self.isGone(pid))
      // The second sleep holds the pipe as long as it lives.
      #expect(try pipe.text() == "")
    }

    @Test("an executable that doesn't exist is named with the errno")
    func missing() {
      #expect(throws: SpawnError(executable: "/nowhere/rig", errno: ENOENT)) {
        _ = try ChildProcess(
          executable: "/nowhere/rig", arguments: [], environment: [], descriptors: DescriptorPlan(base: 3))
      }
    }

    @Test("exactly the planned descriptors are inherited, under the planned numbers")
    func descriptors() throws {
      let pipe = try TestPipe()
      // What the test runner has inherited itself without the flag; the supervisor does the same (ProcessSetup).
      _ = rig_close_on_exec_from(3)
      let stranger = open("/dev/zero", O_RDONLY | O_CLOEXEC)
      let wanted = [open("/dev/full", O_WRONLY | O_CLOEXEC), open("/dev/random", O_RDONLY | O_CLOEXEC)]
      defer { for descriptor in wanted + [stranger] { close(descriptor) } }
      var plan = DescriptorPlan(base: 1)
      for descriptor in [pipe.input] + wanted { _ = plan.grant(descriptor) }
      let process = try Self.shell("exec ls -l /proc/self/fd", plan)
      let lines = try pipe.text().split(separator: "\n").compactMap { line -> String? in
        guard let arrow = line.range(of: " -> ") else { return nil }
        let number = line[..<arrow.lowerBound].split(separator: " ").last ?? ""
        return "\(number) \(line[arrow.upperBound...])"
      }.filter { !$0.hasSuffix("/fd") }  // the directory that ls looks at
      #expect(lines.count == 4, "\(lines)")
      #expect(lines.contains("0 /dev/null"))
      #expect(lines.contains { $0.hasPrefix("1 pipe:") })
      #expect(lines.contains("2 /dev/full"))
      #expect(lines.contains("3 /dev/random"))
      #expect(try Self.waitForEnd(process) == .status(0))
      process.reap()
    }

    @Test("a child starts with no signal blocked or ignored, whatever we do")
    func signals() throws {
      let pipe = try TestPipe()
      var plan = DescriptorPlan(base: 1)
      _ = plan.grant(pipe.input)
      let before = Glibc.signal(SIGPIPE, SIG_IGN)
      defer { _ = Glibc.signal(SIGPIPE, before) }
      let process = try ChildProcess(
        executable: "/bin/grep", arguments: ["-E", "^Sig(Blk|Ign)", "/proc/self/status"], environment: [],
        descriptors: plan)
      var masks: [String: UInt64] = [:]
      for line in try pipe.text().split(separator: "\n") {
        let parts = line.split(separator: ":\t")
        if parts.count == 2 { masks[String(parts[0])] = UInt64(parts[1], radix: 16) }
      }
      process.reap()
      // Signals 32 and 33 are the C library's own and not to be had by anybody else.
      let own: UInt64 = 1 << 31 | 1 << 32
      #expect(masks["SigBlk"] == 0)
      #expect(masks["SigIgn"].map { $0 & ~own } == 0)
    }
  }
}
