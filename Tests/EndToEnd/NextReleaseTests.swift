// The next release beside this one: what it writes into shared memory, and what its supervisor says to a worker, that this release
// doesn't know. None of it is damage: nothing is reported, restarted or lost.

import Foundation
import Testing

@Suite("15.3 The next release", .serialized)
struct NextReleaseTests {
  /// A field behind a record that this release doesn't know.
  private static let field: [UInt8] = [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3]
  /// Of no ring.
  private static let unknownType: UInt16 = 777

  /// A message of a kind that nobody knows to the reader in a slot, in a longer envelope with flags (Links, Envelope).
  private static func message(to target: UInt8) -> [UInt8] {
    [40, 0xF8, target, 0, 200, 0] + [UInt8](repeating: 0, count: 42)
  }

  /// The same event with flags and a field of the next release, which stands before the JSON text.
  private static func nextRelease(_ event: [UInt8]) -> [UInt8] {
    let length = event[44..<48].reversed().reduce(0) { $0 << 8 | Int($1) }
    let start = event.count - length
    var record = Array(event[..<start]) + field + Array(event[start...])
    record[1] |= 0xF8
    return record
  }

  /// What a writer adds to its ring.
  private struct Addition {
    let ring: String
    /// Of a type that nobody knows.
    var records: [(type: UInt16, bytes: [UInt8])] = [(unknownType, [])]
    /// How many readers count each kind.
    var kinds: [String: Double] = [:]

    init(_ ring: String, readers: Double) {
      self.ring = ring
      kinds["\(unknownType)"] = readers
    }

    /// With a record of a known type, for one reader, of which `kind` is unknown.
    func with(_ type: UInt16, _ bytes: [UInt8], _ kind: String, readers: Double = 1) -> Addition {
      var addition = self
      addition.records.append((type, bytes))
      addition.kinds[kind] = readers
      return addition
    }
  }

  private static func additions(to event: [UInt8]) -> [Addition] {
    var events = Addition("events.streams", readers: 2).with(
      1, [9] + event.dropFirst(), "event.v9", readers: 2)
    events.records.append((1, nextRelease(event)))
    let conversations = [
      ("requests.connections.0", 2.0), ("calls.connections.0", 1), ("answers.proxies.0", 3),
      ("publications.connections.0", 2), ("responses.streams", 2),
    ].map { Addition($0, readers: $1).with(20, message(to: 0), "message.200") }
    return conversations + [
      events, Addition("state.control", readers: 2), Addition("presence.connections.0", readers: 1),
    ]
  }

  @Test("15.3 Its records in any ring cost nothing: no report, no restart, no event")
  func records() throws {
    try Gateway.run(try Gateway.settingsForAllWorkers()) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a", "b"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      let control = try #require(gateway.workers(.control).first)
      let event = try #require(try TamperedRing("events.control", heldBy: control).records().last).bytes
      let added = Self.additions(to: event)
      for addition in added { try TamperedRing(addition.ring, heldBy: control).append(addition.records) }
      try gateway.publish(CloudEvent.json("b"))
      #expect(try client.events(until: "b").compactMap(\.name) == ["a"])
      for addition in added {
        for (kind, readers) in addition.kinds {
          let labels = ["ring": addition.ring, "kind": kind]
          try eventually("\(labels) is counted") {
            try gateway.metric("rig_unknown_records_total", labels) == readers
          }
        }
      }
      let metrics = try MetricsText(gateway.management("GET", "/metrics").text)
      #expect(metrics.sum("rig_corrupt_rings_total") == 0)
      #expect(metrics.sum("rig_worker_restarts_total") == 0)
      #expect(gateway.logged("ring is corrupt; its writer is restarted").isEmpty)
    }
  }

  /// Gives the worker another manifest, as the next release's supervisor would write it.
  private static let rewriting = #"""
    import base64, fcntl, json, os, sys

    def extended(value):
        if isinstance(value, list):
            return [extended(one) for one in value]
        if isinstance(value, dict):
            return dict({key: extended(one) for key, one in value.items()}, ofTheNextRelease={"a": [1, None]})
        return value

    number = int(os.environ["RIG_MANIFEST_FD"])
    manifest = json.loads(os.pread(number, os.fstat(number).st_size, 0))
    listeners = manifest["listeners"]
    ring = dict(manifest["rings"][0], id=0x7F0000, purpose="future", writer={"kind": "futures", "place": 3})
    settings = json.loads(base64.b64decode(manifest["settings"]))
    settings["ofTheNextRelease"] = {"a": [1, 2.5, None, True, "x"]}
    del settings["presenceGraceSeconds"], settings["longpollingMaxEvents"]
    manifest = extended(manifest)
    manifest["rings"].append(ring)
    manifest["listeners"] = listeners
    manifest["settings"] = base64.b64encode(json.dumps(settings).encode()).decode()
    del manifest["release"]
    memory = os.memfd_create("rig-manifest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, json.dumps(manifest).encode())
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    os.dup2(memory, number, inheritable=True)
    os.execv(sys.argv[1], [sys.argv[1]])
    """#

  @Test("15.3 Its supervisor's keys are passed over, and those that it doesn't write have their defaults")
  func manifest() throws {
    let installation = try Installation()
    try installation.write(Self.rewriting, to: "rewrite.py")
    let python = try Tools.python("python3")
    for kind in WorkerKind.allCases {
      let original = try Tools.ours(kind.rawValue)
      try installation.replace(
        kind.rawValue, by: "exec '\(python)' '\(installation.path("rewrite.py"))' '\(original)'")
    }
    let launcher = ["/bin/sh", "-c", "shift; exec \"$0\" \"$@\"", installation.path("rig-supervisor")]
    try Gateway.run(try Gateway.settingsForAllWorkers(), launcher: launcher) { gateway in
      for kind in WorkerKind.allCases { #expect(!gateway.workers(kind).isEmpty, "\(kind)") }
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      #expect(try gateway.blacklist("s").status == 201)
      let metrics = try MetricsText(gateway.management("GET", "/metrics").text)
      #expect(metrics.sum("rig_worker_restarts_total") == 0)
      #expect(metrics.sum("rig_unknown_records_total") == 0)
      #expect(metrics.labels(of: "rig_ring_used_bytes").contains { $0["ring"] == "future.futures" })
    }
    withExtendedLifetime(installation) {}
  }
}
