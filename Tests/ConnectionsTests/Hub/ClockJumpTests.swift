// The wall clock jumps while connections are open: what a worker does then is what it would have done without, until the jump has
// lasted for CLOCK_JUMP_DELAY_S.

import Kit
import Testing
import Tokens

@testable import Connections

@Suite("14.E29 A jump of the wall clock")
struct ClockJumpTests {
  private static let start: Int64 = 1_800_000_000_000
  private static let hour: Int64 = 3_600_000
  private static let gauge = #"rig_clock_jump_seconds{worker="connections.0"}"#

  /// The two clocks of a machine, moved by the test.
  private final class Machine {
    var bootMs: Int64 = 1_000_000
    var jumpMs: Int64 = 0
    var unixMs: Int64 { ClockJumpTests.start + bootMs }
    var source: TimeSource {
      TimeSource(wallMs: { [unowned self] in unixMs + jumpMs }, bootMs: { [unowned self] in bootMs })
    }
  }

  /// A worker with one stream, whose token ends in an hour, as an event does that is published when it is asked for.
  private struct Scene {
    let machine = Machine()
    let worker: TestWorker
    let writer: EventWriter
    let client: TestClient
    private let end: Int64
    private let gateway: TestGateway

    init(delaySeconds: Int) throws {
      gateway = try TestGateway()
      worker = try gateway.worker(time: machine.source) {
        $0.clockJumpDelaySeconds = delaySeconds
        $0.heartbeatSeconds = 3_600
      }
      writer = try gateway.streamsWriter()
      client = try TestClient()
      end = machine.unixMs + ClockJumpTests.hour
      var identity = ConnectionIdentity()
      _ = identity.adopt([
        Credential(user: "alice", session: nil, roles: [], validUntil: Double(end) / 1000)
      ])
      try worker.openSSE(client, [.to("greeting")], identity: identity)
    }

    /// One second passes; what the client has received of an event that is good for as long as its token, published then.
    func pass(event number: Int) throws -> String {
      machine.bootMs += 1_000
      worker.tick()
      try writer.publish(number, expiresAtUnixMs: end)
      worker.run()
      return client.take()
    }
  }

  @Test("14.E29 Two hours of it end neither token nor event before CLOCK_JUMP_DELAY_S, and both behind it")
  func forward() throws {
    let scene = try Scene(delaySeconds: 60)
    let first = try scene.pass(event: 0)
    #expect(numbers(first) == [0] && scene.worker.metric(Self.gauge) == 0)
    scene.machine.jumpMs = 2 * Self.hour
    // The first look at it is when it is noted.
    for second in 1...60 {
      let came = try scene.pass(event: second)
      #expect(numbers(came) == [second], "second \(second)")
      #expect(scene.worker.metric(Self.gauge) == 7_200)
    }
    let came = streamed(try scene.pass(event: 61))
    #expect(came.map(\.name) == ["rig.server_closing"] && came.first?.data.contains("token expired") == true)
    #expect(scene.worker.metric(Self.gauge) == 0)
    scene.client.disconnect()
  }

  @Test("14.E29 A jump that is taken back is none, and one back in time gives an ended token no more time")
  func takenBack() throws {
    let scene = try Scene(delaySeconds: 60)
    for (number, jumpMs) in [2 * Self.hour, 0, -2 * Self.hour, 0, 2 * Self.hour, 0].enumerated() {
      scene.machine.jumpMs = jumpMs
      // No jump lasts for longer than half of the delay; all together last for three times as long as it.
      for _ in 0..<30 {
        let came = try scene.pass(event: number)
        #expect(numbers(came) == [number])
      }
    }
    scene.machine.jumpMs = -2 * Self.hour
    scene.machine.bootMs += Self.hour
    let came = streamed(try scene.pass(event: 9))
    #expect(came.map(\.name) == ["rig.server_closing"])
    scene.client.disconnect()
  }

  @Test("14.E29 With CLOCK_JUMP_DELAY_S=0 the wall clock is followed at once")
  func followed() throws {
    let scene = try Scene(delaySeconds: 0)
    let first = try scene.pass(event: 0)
    #expect(numbers(first) == [0])
    scene.machine.jumpMs = 2 * Self.hour
    let came = streamed(try scene.pass(event: 1))
    #expect(came.map(\.name) == ["rig.server_closing"])
    scene.client.disconnect()
  }
}
