// Where each partition has been read to, in STATE_DIR: for the next life of the gateway. Written by a thread of its own, since a
// disk may stall: at most once per second, and never for more than a twentieth of the time.
//
//   rig-positions 1 1597639105 1834              see StateDocument
//   position rig 0 AQAAAAAAAAA…                  topic with escapes (%20), partition, trail (ReadTrail) in base64url
//
// What it says has been passed by every reader of the event ring: a restart repeats nothing of it, and loses nothing behind it.

import Dispatch
import Kit
import Synchronization

/// The positions of a life of the gateway, as a file. Pure.
enum PositionText {
  private static let name = "rig-positions"
  private static let version = 1

  static func encode(_ positions: [TopicPartition: ReadTrail]) -> [UInt8] {
    var body: [UInt8] = []
    for (name, trail) in positions.sorted(by: { $0.key < $1.key }) {
      body.append(
        contentsOf: "position \(word(name.topic)) \(name.partition) \(Base64URL.encode(trail.encoded))\n".utf8
      )
    }
    return StateDocument.encode(name, version: version, body: body)
  }

  static func decode(_ bytes: [UInt8]) throws(StateDocument.Damage) -> [TopicPartition: ReadTrail] {
    var positions: [TopicPartition: ReadTrail] = [:]
    for (index, line) in try StateDocument.lines(of: bytes, name, version: version).enumerated() {
      let words = String(decoding: line, as: UTF8.self).split(
        separator: " ", omittingEmptySubsequences: false)
      guard words.count == 4, words[0] == "position", let topic = topic(words[1]),
        let partition = Int32(words[2]), partition >= 0,
        let bytes = Base64URL.decode(String(words[3])),
        let trail = bytes.withUnsafeBytes({ ReadTrail(decoding: $0) }),
        positions.updateValue(trail, forKey: TopicPartition(topic: topic, partition: partition))
          == nil
      else { throw StateDocument.Damage("line \(index + 2) is no position") }
    }
    return positions
  }

  /// A source's name may have anything in it; all but visible ASCII is written as escapes (RFC 3986 §2.1).
  private static func word(_ topic: String) -> String {
    topic.utf8.reduce(into: "") { word, octet in
      if octet > 0x20, octet < 0x7F, octet != UInt8(ascii: "%") {
        word.unicodeScalars.append(Unicode.Scalar(octet))
      } else {
        word += "%" + (octet < 0x10 ? "0" : "") + String(octet, radix: 16)
      }
    }
  }

  private static func topic(_ word: Substring) -> String? {
    String(validating: HTTPOctets.percentDecoded(word.utf8).octets, as: UTF8.self)
  }
}

/// The file. Its methods are called by one thread.
final class PositionFile: Sendable {
  private static let maximumBytes = 64 << 20
  /// Marks of each trail: a kilobyte.
  static let marks = 40
  /// Nanoseconds between two writings at least, and how many times as long as the last one took.
  private static let pause: (leastNs: UInt64, share: UInt64) = (1_000_000_000, 20)

  private struct State {
    var isWriting = false
    var notBefore: UInt64 = 0
    var failure: StateFile.Failure?
  }

  private let file: StateFile
  private let queue = DispatchQueue(label: "positions")
  private let state = Mutex(State())

  init(directory: String) {
    file = StateFile(directory: directory, name: "positions", maximumBytes: Self.maximumBytes)
  }

  /// As `read`, by who will write it: what a writer that was interrupted has left is removed.
  func begin() throws(StateFile.Failure) -> [TopicPartition: ReadTrail] {
    file.removeLeftover()
    return try read()
  }

  /// What it says; nothing if there is none. Throws if it can't be read, or is damaged.
  func read() throws(StateFile.Failure) -> [TopicPartition: ReadTrail] {
    guard let bytes = try file.read() else { return [:] }
    do throws(StateDocument.Damage) {
      return try PositionText.decode(bytes)
    } catch {
      throw StateFile.Failure(description: "STATE_DIR: \(file.path) is damaged: \(error)")
    }
  }

  /// Whether the next writing may begin.
  func isReady(_ now: UInt64) -> Bool {
    state.withLock { !$0.isWriting && now >= $0.notBefore }
  }

  /// Writes the positions; only when ready.
  func write(_ positions: [TopicPartition: ReadTrail]) {
    state.withLock { $0.isWriting = true }
    queue.async { [self] in
      let began = MonotonicTime.now()
      let failure = writeNow(positions)
      let now = MonotonicTime.now()
      state.withLock {
        $0.isWriting = false
        $0.notBefore = now + max(Self.pause.leastNs, (now - began) * Self.pause.share)
        if let failure { $0.failure = failure }
      }
    }
  }

  private func writeNow(_ positions: [TopicPartition: ReadTrail]) -> StateFile.Failure? {
    do throws(StateFile.Failure) {
      try file.write(PositionText.encode(positions))
      return nil
    } catch {
      return error
    }
  }

  /// Why the last writing failed, once.
  func takeFailure() -> StateFile.Failure? {
    state.withLock { state in
      defer { state.failure = nil }
      return state.failure
    }
  }

  /// Waits for what is being written, at most so long. True if nothing is any more.
  func isIdle(within milliseconds: Int) -> Bool {
    let done = DispatchSemaphore(value: 0)
    queue.async { done.signal() }
    return done.wait(timeout: .now() + .milliseconds(milliseconds)) == .success
  }
}
