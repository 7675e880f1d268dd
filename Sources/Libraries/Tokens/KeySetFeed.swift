// One JWK set as it is read again and again: a file at once, one of a URL by whoever calls services. Keys that are known
// stay in use when the set can't be had.
//
//   file   due ──► read ──► the keys, or the old ones and a line in the log
//   URL    due ──► fetch … ──► the same, and whoever waited for it is told

import Kit
import Links
import Logging
import Settings

/// Belongs to one thread.
final class KeySetFeed {
  /// Fetches a set from its URL, and calls back once, on the same thread. The set's contents, or why it can't be had.
  typealias Fetch = (@escaping (Result<[UInt8], UnusableKeys>) -> Void) -> Void

  /// After a failed fetch it is tried again sooner than when it is due.
  private static let failureRestSeconds: Int64 = 5

  let source: KeySetSource
  /// Of the set as it was read last; nil: there was none yet that could be used.
  private(set) var keys: KeySet?
  private let algorithms: [SignatureAlgorithm]
  private let log: Logger
  /// The set as it was read last.
  private var contents: [UInt8]?
  /// The second of the last try; nil: there was none.
  private var lastTry: Int64?
  private var hasFailed = false
  private var waiting: [() -> Void] = []
  /// Whether the set is being fetched.
  private(set) var isFetching = false

  init(_ source: KeySetSource, algorithms: [SignatureAlgorithm], log: Logger) {
    self.source = source
    self.algorithms = algorithms
    var log = log
    if let issuer = source.issuer { log[metadataKey: "issuer"] = "\(issuer)" }
    self.log = log
  }

  /// Whether the set is elsewhere and hasn't come yet: then no token is known to be wrong.
  var isAwaited: Bool { source.url != nil && keys == nil }

  /// Reads the set unless that was tried less than `restSeconds` ago. Whether there are other keys now; those of a URL come
  /// later, which `changed` tells.
  func read(
    atSecond second: Int64, restSeconds: Int64, fetch: Fetch?, changed: @escaping () -> Void
  ) -> Bool {
    guard source.url == nil else {
      if let fetch { beginFetch(atSecond: second, restSeconds: restSeconds, fetch, changed) }
      return false
    }
    if let lastTry, isResting(second - lastTry, restSeconds) { return false }
    lastTry = second
    do {
      return try use(Array(try TextFile.read(source.location).utf8))
    } catch {
      complain(error)
      return false
    }
  }

  /// Calls `body` once, when the fetch in progress has ended; at once if there is none.
  func whenFetched(_ body: @escaping () -> Void) {
    if isFetching { waiting.append(body) } else { body() }
  }

  /// Not after a clock that has gone back: it may have gone far.
  private func isResting(_ seconds: Int64, _ rest: Int64) -> Bool { seconds >= 0 && seconds < rest }

  private func beginFetch(
    atSecond second: Int64, restSeconds: Int64, _ fetch: Fetch, _ changed: @escaping () -> Void
  ) {
    guard !isFetching else { return }
    let rest = hasFailed ? min(restSeconds, Self.failureRestSeconds) : restSeconds
    if let lastTry, isResting(second - lastTry, rest) { return }
    isFetching = true
    lastTry = second
    fetch { [weak self] result in self?.fetched(result, changed) }
  }

  private func fetched(_ result: Result<[UInt8], UnusableKeys>, _ changed: () -> Void) {
    isFetching = false
    do {
      let areOthers = try use(try result.get())
      hasFailed = false
      if areOthers { changed() }
    } catch {
      hasFailed = true
      complain(error)
    }
    let waiting = waiting
    self.waiting = []
    for body in waiting { body() }
  }

  /// Takes the keys of a set. Whether they are others than before.
  private func use(_ contents: [UInt8]) throws -> Bool {
    guard contents != self.contents else { return false }
    let set = try contents.withUnsafeBytes { try KeySet(jwks: $0, algorithms: algorithms) }
    self.contents = contents
    keys = set
    for warning in set.warnings { log.warning("keys of tokens", metadata: ["reason": "\(warning)"]) }
    log.info("the JWK set is read", metadata: ["keys": "\(set.keys.count)"])
    return true
  }

  private func complain(_ error: any Error) {
    // The keys known so far stay in use.
    log.error("JWT_JWKS: the JWK set can't be used", metadata: ["reason": "\(error)"])
  }
}

/// A JWK set from its URL, by the proxy workers.
extension CallClient {
  /// Fetches a set of JWT_JWKS, by its place in the list. `body` is called once: with the set's contents, or why it can't be
  /// had.
  public func fetchKeySet(_ index: Int, _ body: @escaping (Result<[UInt8], UnusableKeys>) -> Void) {
    call(ServiceCall(.keySet, index: UInt16(clamping: index)), nowNs: MonotonicTime.now()) { outcome in
      switch outcome {
      case .answered(200...299, let contents): body(.success(contents))
      case .answered(let status, _): body(.failure(UnusableKeys("its URL answers with status \(status)")))
      case .timedOut: body(.failure(UnusableKeys("its URL doesn't answer in time")))
      case .unreachable(let reason), .busy(let reason): body(.failure(UnusableKeys(reason)))
      }
    }
  }
}
