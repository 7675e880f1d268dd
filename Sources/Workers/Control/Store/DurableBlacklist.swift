// The blacklist as it lies in STATE_DIR: a file that is added to, and written anew when most of it is of no use any more.
//
//   blacklist   "rig-blacklist 1\n" | record | record | …
//   record      digest, 16 bytes | dead until, 4 (seconds since 1970) | CRC-32C of both and of the record's number, 4     little endian
//
// Sessions are there as digests, like everywhere. Added is one group at a time, and each is on the disk before the next begins: so
// a last group that is cut off, or ends in zeros, is that of a write which was interrupted, and of which nobody has been told that it
// stands. Any other damage is refused.

import Glibc
import Kit
import Links

struct BlacklistFile: Sendable {
  struct Entry: Equatable, Sendable {
    var session: SessionDigest
    /// Seconds since 1970.
    var until: UInt32
  }

  private static let head = Array("rig-blacklist 1\n".utf8)
  private static let recordBytes = 24
  private static let checkedBytes = 20
  /// Records that are added at once.
  fileprivate static let mostAtOnce = 128
  private static let maximumBytes = 1 << 30

  let file: StateFile

  init(directory: String) {
    file = StateFile(directory: directory, name: "blacklist", maximumBytes: Self.maximumBytes)
  }

  static func bytes(records: Int) -> Int { head.count + records * recordBytes }

  /// All whole records; nil: there is no file.
  func read() throws(StateFile.Failure) -> [Entry]? {
    guard let bytes = try file.read() else { return nil }
    guard bytes.starts(with: Self.head) else { throw damaged("its first line isn't that of a blacklist") }
    let count = (bytes.count - Self.head.count) / Self.recordBytes
    var entries: [Entry] = []
    entries.reserveCapacity(count)
    for number in 0..<count {
      let start = Self.bytes(records: number)
      guard let entry = Self.entry(bytes[start..<start + Self.recordBytes], number) else {
        let isInterrupted =
          number >= count - Self.mostAtOnce && bytes[(start + Self.recordBytes - 1)...].allSatisfy { $0 == 0 }
        guard isInterrupted else { throw damaged("the checksum of record \(number) is wrong") }
        break
      }
      entries.append(entry)
    }
    return entries
  }

  func replace(by entries: [Entry]) throws(StateFile.Failure) {
    let bytes = Self.head + Self.encode(entries, from: 0)
    // It says no less than the old one: it may stay whatever becomes of this.
    try file.replace(bytes, by: bytes)
  }

  /// Adds to a file of so many records; they are on the disk when this returns. What is behind those is of a try that failed.
  func append(_ entries: [Entry], behind records: Int) throws(StateFile.Failure) {
    let descriptor = open(file.path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { throw failure("opened") }
    defer { close(descriptor) }
    let length = Self.bytes(records: records)
    let end = lseek(descriptor, 0, SEEK_END)
    guard end >= length else { throw damaged("it has been cut off") }
    guard end == length || ftruncate(descriptor, length) == 0 else { throw failure("written") }
    var rest = Self.encode(entries, from: records)[...]
    while !rest.isEmpty {
      let place = length + entries.count * Self.recordBytes - rest.count
      let count = rest.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, place) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw failure("written") }
      rest = rest.dropFirst(count)
    }
    guard fsync(descriptor) == 0 else { throw failure("written") }
  }

  private func failure(_ what: String) -> StateFile.Failure {
    let reason = String(cString: strerror(errno))
    return StateFile.Failure(description: "STATE_DIR: \(file.path) can't be \(what): \(reason)")
  }

  private func damaged(_ what: String) -> StateFile.Failure {
    StateFile.Failure(description: "STATE_DIR: \(file.path) is damaged: \(what)")
  }

  private static func encode(_ entries: [Entry], from first: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * recordBytes)
    for (index, entry) in entries.enumerated() {
      var fields = FieldWriter()
      fields.append(entry.session.low)
      fields.append(entry.session.high)
      fields.append(entry.until)
      let checksum = checksum(fields.bytes[...], first + index)
      fields.append(checksum)
      bytes += fields.bytes
    }
    return bytes
  }

  private static func entry(_ record: ArraySlice<UInt8>, _ number: Int) -> Entry? {
    record.withUnsafeBytes { bytes in
      var fields = FieldReader(bytes)
      guard let low = fields.number(UInt64.self), let high = fields.number(UInt64.self),
        let until = fields.number(UInt32.self), let checksum = fields.number(UInt32.self),
        checksum == Self.checksum(record.prefix(checkedBytes), number)
      else { return nil }
      return Entry(session: SessionDigest(low: low, high: high), until: until)
    }
  }

  private static func checksum(_ bytes: ArraySlice<UInt8>, _ number: Int) -> UInt32 {
    Checksum.crc32c(bytes + withUnsafeBytes(of: UInt64(number).littleEndian) { Array($0) })
  }
}

/// Has entries written by a thread of its own, one group at a time. Use it on one loop.
final class BlacklistKeeper {
  typealias Entry = BlacklistFile.Entry
  /// Does the work on a thread and calls back on the loop. A test has another.
  typealias Writing = (
    @escaping @Sendable () -> StateFile.Failure?, @escaping (StateFile.Failure?) -> Void
  ) -> Void
  typealias Done = (StateFile.Failure?) -> Void
  private typealias Work = @Sendable () throws(StateFile.Failure) -> Void

  /// Entries that wait for a write to end; more: they are refused.
  static let maximumWaiting = 10_000
  /// Files of fewer records aren't worth being written anew.
  private static let leastRecords = 1_000
  /// More don't fit anyway.
  private static let mostRecords = 1 << 40
  private static let ending = StateFile.Failure(description: "STATE_DIR: this worker ends")

  private let file: BlacklistFile
  private let run: Writing
  /// What the file holds; nil: it is to be written anew.
  private var records: Int?
  /// With so many records it is written anew, if half of them are of no use.
  private var nextRewrite = leastRecords
  private var waiting: [(entry: Entry, done: Done)] = []
  /// Whoever waits for the write that is going on.
  private var group: [Done] = []
  private var isWriting = false
  private var hasStopped = false
  var failed: (StateFile.Failure) -> Void = { _ in }
  /// All sessions that are dead now.
  var living: () -> [Entry] = { [] }

  init(_ file: BlacklistFile, run: @escaping Writing) {
    self.file = file
    self.run = run
  }

  /// What the file says at the start of a gateway; if there is none it is made.
  ///
  /// - Parameter now: seconds since 1970.
  func begin(now: UInt32) throws(StateFile.Failure) -> [Entry] {
    file.file.removeLeftover()
    let found = try file.read()
    // A file that is there isn't written: a disk that is full stops no start. What is behind its records is cut off by the next entry.
    if found == nil { try file.replace(by: []) }
    let entries = found ?? []
    let living = entries.filter { $0.until > now }
    records = entries.count
    nextRewrite = max(Self.leastRecords, 2 * living.count)
    return living
  }

  /// What the predecessor of this worker had told, and perhaps not written any more, is written now, unless an entry has had it
  /// written before.
  func goOn() { proceed() }

  /// Calls `done` when the entry is on the disk, or why it isn't.
  func add(_ entry: Entry, _ done: @escaping Done) {
    guard !hasStopped else { return done(Self.ending) }
    guard waiting.count < Self.maximumWaiting else {
      return done(StateFile.Failure(description: "STATE_DIR: too many sessions wait to be written"))
    }
    waiting.append((entry, done))
    proceed()
  }

  /// The worker ends: whoever waits is answered.
  func stop() {
    hasStopped = true
    let all = group + waiting.map(\.done)
    (group, waiting) = ([], [])
    for done in all { done(Self.ending) }
  }

  private func proceed() {
    guard !isWriting, !hasStopped, records == nil || !waiting.isEmpty else { return }
    if let records, records < nextRewrite { append(behind: records) } else { rewrite() }
  }

  private func append(behind records: Int) {
    let (file, entries) = (file, waiting.prefix(BlacklistFile.mostAtOnce).map(\.entry))
    let work: Work = { () throws(StateFile.Failure) in try file.append(entries, behind: records) }
    write(work, first: entries.count) { [weak self] failure in
      if failure == nil { self?.records = records + entries.count }
    }
  }

  private func rewrite() {
    // Those that wait are among them.
    let (file, living) = (file, living())
    let work: Work = { () throws(StateFile.Failure) in try file.replace(by: living) }
    write(work, first: waiting.count) { [weak self] failure in
      guard let self else { return }
      if failure == nil { records = living.count }
      // If it failed, there may yet be room to add to it.
      nextRewrite =
        failure == nil
        ? max(Self.leastRecords, 2 * living.count) : min(2 * nextRewrite, Self.mostRecords)
    }
  }

  /// - Parameters:
  ///   - count: of those that wait who wait for this.
  ///   - written: comes before anybody is answered.
  private func write(
    _ body: @escaping Work, first count: Int, _ written: @escaping (StateFile.Failure?) -> Void
  ) {
    isWriting = true
    group = waiting.prefix(count).map(\.done)
    waiting.removeFirst(count)
    let work: @Sendable () -> StateFile.Failure? = {
      do throws(StateFile.Failure) {
        try body()
        return nil
      } catch {
        return error
      }
    }
    run(work) { [weak self] failure in
      written(failure)
      self?.ended(failure)
    }
  }

  /// A file that can't be written is tried again with the next entry.
  private func ended(_ failure: StateFile.Failure?) {
    guard !hasStopped else { return }
    isWriting = false
    var all = group
    group = []
    if let failure {
      all += waiting.map(\.done)
      waiting = []
      failed(failure)
    }
    for done in all { done(failure) }
    if failure == nil { proceed() }
  }
}
