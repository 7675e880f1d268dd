// Which connections have begun a message that isn't whole, and since when. Pure; an ordinary message, which comes whole in one read,
// is never in here.

struct UnfinishedMessages {
  private var begun: [ConnectionIndex: UInt32] = [:]

  /// A message has begun; the first call counts until it has ended.
  mutating func begun(_ index: ConnectionIndex, second: UInt32) {
    if begun[index] == nil { begun[index] = second }
  }

  /// It is whole, or will never be.
  mutating func ended(_ index: ConnectionIndex) {
    guard !begun.isEmpty else { return }
    begun[index] = nil
  }

  /// Those that began `seconds` ago or before.
  func overdue(after seconds: Int, second: UInt32) -> [ConnectionIndex] {
    guard !begun.isEmpty else { return [] }
    return begun.filter { Int(second &- $0.value) >= seconds }.map(\.key)
  }
}
