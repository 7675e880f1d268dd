// What a WebSocket client has said while an earlier message of its is being checked by a service.

struct HeldMessages {
  static let maximumMessages = 64
  static let maximumBytes = 1 << 20

  private(set) var messages: [(bytes: [UInt8], isText: Bool)] = []
  private var bytes = 0
  /// Of the message that is being checked.
  private let checkedBytes: Int

  init(checking checkedBytes: Int) { self.checkedBytes = checkedBytes }

  /// Of all messages that wait, the one that is being checked included.
  var keptBytes: Int { checkedBytes + bytes }

  /// False: there is no room.
  mutating func add(_ message: [UInt8], isText: Bool) -> Bool {
    guard messages.count < Self.maximumMessages, message.count <= Self.maximumBytes - bytes else {
      return false
    }
    messages.append((message, isText))
    bytes += message.count
    return true
  }
}
