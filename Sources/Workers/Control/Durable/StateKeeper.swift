// Has the file of the definitions written by a thread of its own: a disk that stalls must not keep the management port from answering.
// One write at a time; whoever wants the next waits for its turn.

import APIs
import Glibc
import Kit
import NIOCore
import NIOPosix

/// Use it on one loop.
final class StateKeeper {
  /// Does the work on a thread and calls back on the loop. A test has another.
  typealias Writing = (@escaping @Sendable () -> Written, @escaping (Written) -> Void) -> Void
  /// What the file holds now.
  typealias Written = Result<[UInt8], StateFile.Failure>

  private let file: StateFile
  private let run: Writing
  private var written: [UInt8]?
  /// Why nothing is written: the file wasn't what it should be when a control worker took over from another.
  private(set) var refusal: StateFile.Failure?

  init(_ file: StateFile, run: @escaping Writing) {
    self.file = file
    self.run = run
    // A limit on the size of files is to be an error like any other (EFBIG).
    signal(SIGXFSZ, SIG_IGN)
  }

  convenience init(_ file: StateFile, thread: NIOThreadPool, loop: EventLoop) {
    self.init(file) { work, done in
      thread.runIfActive(eventLoop: loop) { work() }.assumeIsolated().whenComplete { result in
        switch result {
        case .success(let written): done(written)
        case .failure(let error): done(.failure(StateFile.Failure(description: "STATE_DIR: \(error)")))
        }
      }
    }
  }

  /// What the file says at the start of a gateway. If there is none it is made, so that a directory that can't be
  /// written is noticed now.
  func begin() throws(StateFile.Failure) -> DurableAPIs {
    file.removeLeftover()
    if let durable = try load() { return durable }
    if let failure = writeNow(DurableAPIs()) { throw failure }
    return DurableAPIs()
  }

  /// What the file says when this worker follows another one in the same gateway; nil, and nothing is ever written: it isn't
  /// there any more, or damaged.
  func goOn() -> DurableAPIs? {
    file.removeLeftover()
    do throws(StateFile.Failure) {
      if let durable = try load() { return durable }
      refusal = StateFile.Failure(description: "STATE_DIR: \(file.path) has been removed")
    } catch {
      refusal = error
    }
    return nil
  }

  private func load() throws(StateFile.Failure) -> DurableAPIs? {
    guard let bytes = try file.read() else { return nil }
    let durable = try Self.decoded(bytes, of: file)
    written = bytes
    return durable
  }

  /// What the bytes of the file say.
  static func decoded(_ bytes: [UInt8], of file: StateFile) throws(StateFile.Failure) -> DurableAPIs {
    do throws(StateDocument.Damage) {
      return try DurableAPIs(decoding: bytes)
    } catch {
      throw StateFile.Failure(description: "STATE_DIR: \(file.path) is damaged: \(error)")
    }
  }

  /// Writes on the calling thread: before anything is served. Returns why it can't be.
  func writeNow(_ durable: DurableAPIs) -> StateFile.Failure? {
    do throws(StateFile.Failure) {
      let bytes = durable.encoded
      try file.replace(written, by: bytes)
      written = bytes
      return nil
    } catch {
      return error
    }
  }

  /// Calls `done` when it is on the disk, or why it can't be.
  func write(_ durable: DurableAPIs, _ done: @escaping (StateFile.Failure?) -> Void) {
    if let refusal { return done(refusal) }
    let (file, old) = (file, written)
    let work: @Sendable () -> Written = {
      Result { () throws(StateFile.Failure) in
        let new = durable.encoded
        try file.replace(old, by: new)
        return new
      }
    }
    run(work) { [weak self] written in
      switch written {
      case .success(let bytes):
        self?.written = bytes
        done(nil)
      case .failure(let failure): done(failure)
      }
    }
  }
}

extension StateFile {
  /// The file that holds what the management API has changed.
  init(directory: String) {
    self.init(directory: directory, name: "definitions", maximumBytes: APITable.maximumFileBytes)
  }
}
