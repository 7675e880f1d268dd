// What a worker is told at its birth, by way of a sealed memfd.

import CLinux
import Foundation
import Glibc
import Testing

@testable import IPC

@Suite("A manifest")
struct WorkerManifestTests {
  private static let own = WorkerIdentity.connections(2)

  /// A ring to read, one to write, one to read and write and one to inspect, and texts that need escaping.
  private static let example = WorkerManifest(
    worker: own, gatewayEpoch: 0xFFFF_FFFF_FFFF, tokenKey: Data(0..<32),
    settings: Data(#"{"a":"ü\n"}"#.utf8), status: 10, wake: 11, listeners: ["inbound": 12, "management": 13],
    rings: [
      RingGrant(
        id: 0, purpose: .events, writer: .streams, readers: [.init(own, slot: 3), .init(.control, slot: 0)],
        cursorPosition: 0, fd: 14),
      RingGrant(
        id: .max, purpose: .publications, writer: own,
        readers: [.init(.control, slot: 0, wake: 11), .init(.streams, slot: 2, wake: 16)], fd: 15),
      RingGrant(
        id: 7, purpose: .events, writer: own,
        readers: [.init(own, slot: 63, wake: 11)], cursorPosition: 4, fd: 17),
      RingGrant(id: 8, purpose: .requests, writer: .connections(1), readers: [], fd: 18),
    ],
    peers: [.init(worker: .streams, status: 19), .init(worker: .supervisor, status: 10)],
    supervisorPid: 4242, release: "4.0.0")

  @Test("arrives as it was sent")
  func roundTrip() throws {
    let descriptor = try WorkerManifest.write(Self.example)
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example)
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example, "reading does not use it up")
  }

  @Test("15.6 says which of the place's processes it is for")
  func incarnation() throws {
    var manifest = Self.example
    manifest.incarnation = .max
    let descriptor = try WorkerManifest.write(manifest)
    #expect(try WorkerManifest.read(descriptor.rawValue).incarnation == .max)
  }

  @Test func `16.1 says what dead ones have left, and nothing if an older supervisor wrote it`() throws {
    var manifest = Self.example
    manifest.ledger = 20
    manifest.courier = 21
    manifest.inheritance = [
      .init(incarnation: 4, courier: 22, cause: .fault), .init(incarnation: 6, courier: nil, cause: .killed),
    ]
    let descriptor = try WorkerManifest.write(manifest)
    #expect(try WorkerManifest.read(descriptor.rawValue) == manifest)
    #expect(manifest.descriptors == Array(10...22))

    var members = try #require(
      JSONSerialization.jsonObject(with: JSONEncoder().encode(manifest)) as? [String: Any])
    members["inheritance"] = [["incarnation": 4, "later": true]]
    let later = try JSONDecoder().decode(
      WorkerManifest.self, from: JSONSerialization.data(withJSONObject: members))
    #expect(later.inheritance == [.init(incarnation: 4, courier: nil, cause: .killed)])
    for name in ["ledger", "courier", "inheritance"] { members[name] = nil }
    let older = try JSONDecoder().decode(
      WorkerManifest.self, from: JSONSerialization.data(withJSONObject: members))
    #expect(older == Self.example)
  }

  @Test
  func `16.5 says how it hands over and whether it retires, and nothing if an older supervisor wrote it`()
    throws
  {
    var manifest = Self.example
    manifest.handOver = 20
    manifest.siblingLedger = 21
    manifest.isRetiring = true
    manifest.predecessor = .max
    manifest.successor = 7
    let descriptor = try WorkerManifest.write(manifest)
    #expect(try WorkerManifest.read(descriptor.rawValue) == manifest)
    #expect(manifest.descriptors == Array(10...21))
    var members = try #require(
      JSONSerialization.jsonObject(with: JSONEncoder().encode(manifest)) as? [String: Any])
    for name in ["handOver", "siblingLedger", "isRetiring", "predecessor", "successor"] {
      members[name] = nil
    }
    let older = try JSONDecoder().decode(
      WorkerManifest.self, from: JSONSerialization.data(withJSONObject: members))
    #expect(older == Self.example)
  }

  @Test func `16.5 a place of connection workers has two seats, and one name`() throws {
    for place in 0..<3 {
      let first = WorkerIdentity.connections(place)
      let second = try #require(first.sibling)
      #expect(second != first && second.sibling == first && second.place == place)
      let seats = [first, second]
      #expect(seats.map(\.seat) == [0, 1])
      #expect(seats.map(\.number) == [2 * place, 2 * place + 1])
      #expect(Set(seats.map(\.name)) == ["connections.\(place)"])
      #expect(seats.map(\.seatName) == ["connections.\(place)", "connections.\(place)b"])
      let json = try JSONEncoder().encode(second)
      #expect(try JSONDecoder().decode(WorkerIdentity.self, from: json) == second)
    }
    #expect(WorkerIdentity.proxies(3).number == 3 && WorkerIdentity.proxies(3).seatName == "proxies.3")
    for worker in [WorkerIdentity.proxies(1), .control, .streams, .supervisor] {
      #expect(worker.sibling == nil, "\(worker.name)")
    }
  }

  @Test(
    "16.5 without a seat it is the first one; a seat that there isn't is refused",
    arguments: [
      (#"{"kind":"connections","place":1}"#, WorkerIdentity.connections(1)),
      (#"{"kind":"connections","place":1,"seat":1}"#, WorkerIdentity.connections(1).sibling),
      (#"{"kind":"connections","place":1,"seat":2}"#, nil),
      (#"{"kind":"connections","place":1,"seat":-1}"#, nil), (#"{"kind":"proxies","seat":1}"#, nil),
      (#"{"kind":"proxies","seat":0}"#, .proxies(0)),
    ])
  func seats(json: String, expected: WorkerIdentity?) {
    #expect((try? JSONDecoder().decode(WorkerIdentity.self, from: Data(json.utf8))) == expected)
  }

  @Test("can be changed by nobody, and is closed on exec unless it is passed on by name")
  func sealed() throws {
    let descriptor = try WorkerManifest.write(Self.example)
    var byte: UInt8 = 0
    #expect(pwrite(descriptor.rawValue, &byte, 1, 0) == -1 && errno == EPERM)
    #expect(ftruncate(descriptor.rawValue, 0) == -1 && errno == EPERM)
    #expect(fcntl(descriptor.rawValue, F_GETFD) & FD_CLOEXEC != 0)
  }

  @Test("names every descriptor once, and no absent one")
  func descriptors() {
    #expect(Self.example.descriptors == Array(10...19))
  }

  @Test("15.2 says of each ring who writes and who reads it, and in which slot")
  func table() {
    let rings = Self.example.rings
    #expect(Self.example.ringsRead(for: .events).map(\.id) == [0, 7])
    #expect(Self.example.ringsRead(for: .requests) == [], "to be inspected only")
    #expect(Self.example.ringWritten(for: .events)?.id == 7)
    #expect(Self.example.ringWritten(for: .requests) == nil)
    #expect(rings.map { $0.slot(of: Self.own) } == [3, nil, 63, nil])
    #expect(rings[1].reader(slot: 2) == .streams && rings[1].reader(slot: 1) == nil)
    #expect(rings.prefix(2).map(\.wake) == [[-1, -1, -1, -1], [11, -1, 16]])
    #expect(rings[2].wake == [CInt](repeating: -1, count: 63) + [11])
    #expect(
      rings.map(\.name) == [
        "events.streams", "publications.connections.2", "events.connections.2", "requests.connections.1",
      ])
  }

  /// A memfd that contains `text` and carries `seals`.
  private func file(_ text: String, seals: CInt = SharedMemory.sizeSeals | CInt(RIG_SEAL_WRITE)) throws
    -> Descriptor
  {
    let descriptor = try SharedMemory.unsealed(name: "test")
    let bytes = Array(text.utf8)
    try #require(write(descriptor.rawValue, bytes, bytes.count) == bytes.count)
    if seals != 0 { try SharedMemory.seal(descriptor.rawValue, seals) }
    return descriptor
  }

  private func json(_ manifest: WorkerManifest) throws -> String {
    String(decoding: try JSONEncoder().encode(manifest), as: UTF8.self)
  }

  private func error(reading descriptor: borrowing Descriptor) -> IPCError? {
    do throws(IPCError) {
      _ = try WorkerManifest.read(descriptor.rawValue)
      return nil
    } catch {
      return error
    }
  }

  @Test(
    "that could still be changed is refused", arguments: [0, SharedMemory.sizeSeals, CInt(RIG_SEAL_WRITE)])
  func unsealed(seals: CInt) throws {
    guard case .invalid(let reason) = error(reading: try file(json(Self.example), seals: seals)) else {
      Issue.record("seals \(seals) are not refused")
      return
    }
    #expect(reason.contains("seals"))
  }

  @Test("larger than its bound is refused on both sides")
  func tooLarge() throws {
    let limit = WorkerManifest.maximumBytes
    let large = try file(String(repeating: " ", count: limit + 1))
    #expect(error(reading: large) == .tooLarge(bytes: limit + 1, limit: limit))
    var manifest = Self.example
    manifest.release = String(repeating: "x", count: limit)
    let size = try json(manifest).utf8.count
    #expect(throws: IPCError.tooLarge(bytes: size, limit: limit)) {
      _ = try WorkerManifest.write(manifest)
    }
  }

  @Test("of another format is refused by its number, whatever else it says")
  func format() throws {
    var manifest = Self.example
    manifest.format = 3
    #expect(error(reading: try WorkerManifest.write(manifest)) == .unknownLayout(found: 3, known: 2...2))
    #expect(error(reading: try file(#"{"format":1,"new":true}"#)) == .unknownLayout(found: 1, known: 2...2))
    #expect(error(reading: try file(#"{"format":-1}"#)) == .unknownLayout(found: 0, known: 2...2))
  }

  @Test(
    "that is no manifest is refused",
    arguments: ["", "{", "[]", "{}", #"{"format":2}"#, #"{"format":"2"}"#, "\u{0}"])
  func garbage(text: String) throws {
    guard case .invalid = error(reading: try file(text)) else {
      Issue.record("\"\(text)\" is not refused")
      return
    }
  }

  @Test("15.3 with additions of a later release, in any object of it, is understood")
  func additions() throws {
    // Every object has a first member.
    let extended = try json(Self.example).replacing("{\"", with: #"{"addedLater":[1,{"a":null}],""#)
      // But for the listeners, which are called by any name.
      .replacing(#""listeners":{"addedLater":[1,{"a":null}],"#, with: #""listeners":{"#)
    #expect(extended.ranges(of: "addedLater").count > 15)
    let descriptor = try file(extended)
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example)
  }

  @Test("15.3 without what a worker can do without has the defaults; without the rest it is refused")
  func missing() throws {
    let members = [
      "format": "2", "worker": #"{"kind":"control"}"#, "gatewayEpoch": "9", "tokenKey": #""AQI=""#,
      "status": "10", "wake": "11", "supervisorPid": "7",
      "rings": #"[{"id":1,"purpose":"future","writer":{"kind":"futures"},"fd":12}]"#,
    ]
    func text(without key: String = "") -> String {
      "{" + members.filter { $0.key != key }.map { "\"\($0)\":\($1)" }.joined(separator: ",") + "}"
    }
    let all = try file(text())
    let manifest = try WorkerManifest.read(all.rawValue)
    let futures = WorkerIdentity(kind: WorkerKind(rawValue: "futures"))
    let ring = RingGrant(
      id: 1, purpose: RingPurpose(rawValue: "future"), writer: futures, readers: [], fd: 12)
    #expect(
      manifest
        == WorkerManifest(
          worker: .control, gatewayEpoch: 9, tokenKey: Data([1, 2]), settings: Data("{}".utf8), status: 10,
          wake: 11, listeners: [:], rings: [ring], peers: [], supervisorPid: 7, release: ""))
    #expect(manifest.incarnation == 0, "15.6 it isn't told")
    for key in members.keys where key != "rings" {
      guard case .invalid = error(reading: try file(text(without: key))) else {
        Issue.record("a manifest without \(key) is not refused")
        continue
      }
    }
    let withoutRings = try file(text(without: "rings"))
    #expect(try WorkerManifest.read(withoutRings.rawValue).rings == [])
  }
}
