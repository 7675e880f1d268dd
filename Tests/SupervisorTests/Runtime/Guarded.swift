import Foundation

/// A value behind a lock that the thread sanitizer sees. `Synchronization.Mutex` takes its futex inside Swift's own
/// library, which isn't instrumented: every use across threads is reported as a race.
final class Guarded<Value>: @unchecked Sendable {
  private let lock = NSLock()
  private var value: Value

  init(_ value: Value) { self.value = value }

  func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
    try lock.withLock { try body(&value) }
  }
}
