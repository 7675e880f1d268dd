// The executable itself, started as a supervisor starts it: manifest, descriptors, heartbeat, and an orderly end.

import Foundation
import Glibc
import IPC
import Kit
import Settings
import TestSupport
import Testing

@testable import Control

@Suite(.serialized) struct ControlProcessTests {
  /// Not `async`: a worker dies with the thread that spawned it, and a thread that is left at an `await` may end.
  @Test("The worker becomes ready, beats, serves, and ends with status 0 on SIGTERM though a client dawdles")
  func life() throws {
    let gateway = try TestGateway()
    let page = try gateway.page("control")
    let listener = try LocalListener()
    let worker = try ControlProcess(gateway, listener)
    try until("the worker is ready") { page.pid == worker.pid && page.state == .ready }

    let client = ManagementClient(port: listener.port)
    let reader = try RingReader(attaching: try gateway.ring("events.control"), slot: 1)
    let event = #"{"specversion":"1.0","type":"greeting","source":"/test","id":"1"}"#
    #expect(try client.post("/v3/messages", event, type: "application/cloudevents+json").status == 202)
    #expect(try reader.next() != nil)
    let metrics = try client.get("/metrics")
    #expect(metrics.value(#"rig_process_threads{worker="control"}"#) != nil)
    #expect(metrics.value(#"rig_consumed_events_total{source="http",topic=""}"#) == "1")
    #expect(try client.get("/readyz").body.contains(#""pid":\#(worker.pid),"#))

    let firstBeat = page.heartbeat
    try until("its heart has beaten") { page.heartbeat > firstBeat }

    let dawdler = try client.connect()
    defer { close(dawdler) }
    let head = Array(
      "POST /v3/messages HTTP/1.1\r\nhost: gateway\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n".utf8)
    #expect(send(dawdler, head, head.count, Int32(MSG_NOSIGNAL)) == head.count)
    var invitation = [UInt8](repeating: 0, count: 64)
    #expect(recv(dawdler, &invitation, invitation.count, 0) > 0)
    kill(worker.pid, SIGTERM)
    try until("the worker says that it stops") { page.state == .stopping }
    try until("the worker has ended") { worker.exitStatus() != nil }
    #expect(worker.exitStatus() == 0)
    #expect(recv(dawdler, &invitation, invitation.count, 0) <= 0)
  }
}

/// A running `rig-control`; killed with the object, and by the kernel when the thread that made it ends.
private final class ControlProcess {
  let pid: pid_t
  private var status: CInt?

  init(_ gateway: TestGateway, _ listener: LocalListener) throws {
    let page = try #require(gateway.peers.first { $0.worker == .control }).status
    let manifest = WorkerManifest(
      worker: .control, gatewayEpoch: 1, tokenKey: Data(count: 32),
      settings: try JSONEncoder().encode(Settings()), status: page, wake: try gateway.eventfd(),
      listeners: ["management": listener.descriptor],
      rings: gateway.rings + [gateway.state] + gateway.presence, peers: gateway.peers,
      supervisorPid: getpid(), release: "3.0.0-test")
    let descriptor = try WorkerManifest.write(manifest)

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // A descriptor duplicated onto itself loses its close-on-exec flag: the child has the numbers of this process.
    for number in manifest.descriptors + [descriptor.rawValue] {
      posix_spawn_file_actions_adddup2(&actions, number, number)
    }
    let path = try Self.executable()
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(path), nil]
    var environment: [UnsafeMutablePointer<CChar>?] = [
      strdup("\(WorkerManifest.environmentName)=\(descriptor.rawValue)"), nil,
    ]
    defer { for text in arguments + environment { free(text) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, path, &actions, nil, &arguments, &environment)
    try #require(result == 0, "cannot start \(path): errno \(result)")
    self.pid = pid
  }

  deinit {
    guard status == nil else { return }
    kill(pid, SIGKILL)
    waitpid(pid, nil, 0)
  }

  /// Exit status, 256 and more for signals; nil: it still runs.
  func exitStatus() -> CInt? {
    if status == nil {
      var raw: CInt = 0
      guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
      let signal = raw & 0x7f
      status = signal == 0 ? (raw >> 8) & 0xff : 256 + signal
    }
    return status
  }

  /// It lies beside the tests.
  private static func executable() throws -> String {
    let bundle = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return URL(fileURLWithPath: bundle).deletingLastPathComponent().appendingPathComponent("rig-control").path
  }
}
