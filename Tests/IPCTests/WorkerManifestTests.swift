// What a worker is told at its birth, by way of a sealed memfd.

import CLinux
import FoundationEssentials
import Glibc
import Testing

@testable import IPC

@Suite("A manifest")
struct WorkerManifestTests {
  /// Every role, every kind of descriptor, and texts that need escaping.
  private static let example = WorkerManifest(
    worker: "connections", slot: 2, gatewayEpoch: 0xFFFF_FFFF_FFFF, tokenKey: Data(0..<32),
    settings: Data(#"{"a":"ü\n"}"#.utf8), status: 10, wake: 11, listeners: ["inbound": 12, "management": 13],
    events: [
      .init(name: "events.streams", id: 0, fd: 14, role: .read(slot: 3)),
      .init(name: "events.http", id: .max, fd: 15, role: .write(wake: [11, -1, 16])),
    ],
    requests: [
      .init(name: "requests.connections.0", id: 7, fd: 17, role: .writeAndRead(slot: 63, wake: [-1])),
      .init(name: "requests.connections.1", id: 8, fd: 18, role: .inspect),
    ],
    peers: [.init(worker: "streams", slot: 0, status: 19), .init(worker: "supervisor", slot: 0, status: 10)],
    supervisorPid: 4242, release: "4.0.0")

  @Test("arrives as it was sent")
  func roundTrip() throws {
    let descriptor = try WorkerManifest.write(Self.example)
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example)
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example, "reading does not use it up")
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

  @Test("gives each role the wake-up descriptors that it needs")
  func roles() {
    let grants = Self.example.events + Self.example.requests
    #expect(grants.map(\.role.wake) == [[], [11, -1, 16], [-1], []])
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

  @Test("larger than a mebibyte is refused on both sides")
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
    manifest.format = 2
    #expect(error(reading: try WorkerManifest.write(manifest)) == .unknownLayout(found: 2, known: 1...1))
    #expect(error(reading: try file(#"{"format":3,"new":true}"#)) == .unknownLayout(found: 3, known: 1...1))
    #expect(error(reading: try file(#"{"format":-1}"#)) == .unknownLayout(found: 0, known: 1...1))
  }

  @Test(
    "that is no manifest is refused",
    arguments: ["", "{", "[]", "{}", #"{"format":1}"#, #"{"format":"1"}"#, "\u{0}"])
  func garbage(text: String) throws {
    guard case .invalid = error(reading: try file(text)) else {
      Issue.record("\"\(text)\" is not refused")
      return
    }
  }

  @Test("with additions of a later release of the same format is understood")
  func additions() throws {
    let extended = try json(Self.example).dropLast() + #","addedLater":[1,2]}"#
    let descriptor = try file(String(extended))
    #expect(try WorkerManifest.read(descriptor.rawValue) == Self.example)
  }
}
