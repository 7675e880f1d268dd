// The workers at the other ends of links, as their status pages show them: which serve now, and which have died since they were last
// looked at. A new process on a page knows nothing of what was asked of its predecessor.

import IPC

public struct Peers {
  private let pages: [StatusPage]
  /// When last looked at.
  private var generations: [UInt64]
  private var turnOf = 0

  /// - Parameter pages: in the order in which the peers are named by numbers.
  public init(_ pages: [StatusPage]) {
    self.pages = pages
    generations = pages.map(\.generation)
  }

  public var count: Int { pages.count }

  public func generation(_ peer: Int) -> UInt64 { pages.indices.contains(peer) ? pages[peer].generation : 0 }

  public func isServing(_ peer: Int) -> Bool { pages.indices.contains(peer) && pages[peer].state == .ready }

  /// The next one that serves, in turn; nil: none does now.
  public mutating func next() -> Int? {
    guard let peer = serving(from: turnOf) else { return nil }
    turnOf = (peer + 1) % pages.count
    return peer
  }

  /// The one that everybody finds for this key; while it doesn't serve, the next one that does.
  public func first(for key: String) -> Int? {
    guard !pages.isEmpty else { return nil }
    return serving(from: Int(Self.hash(key) % UInt64(pages.count)))
  }

  private func serving(from start: Int) -> Int? {
    pages.indices.lazy.map { (start + $0) % pages.count }.first(where: isServing)
  }

  /// FNV-1a: the same in every process, which Swift's own isn't.
  private static func hash(_ key: String) -> UInt64 {
    key.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// Whether another process is on the page than when it was last looked at. Look before something is asked, and once per second: what
  /// the predecessor was asked is then given up, and nothing that is asked from here on with it.
  public mutating func hasRestarted(_ peer: Int) -> Bool {
    guard pages.indices.contains(peer), pages[peer].generation != generations[peer] else { return false }
    generations[peer] = pages[peer].generation
    return true
  }
}
