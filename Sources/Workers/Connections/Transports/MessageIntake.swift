// What all WebSockets of a worker take in together: the bytes that are kept of their messages, the work of expanding compressed ones,
// and how long a message may take to become whole.

import HTTP
import Settings

/// Belongs to the worker's loop.
final class MessageIntake {
  private let maximumMessageBytes: Int
  let pongTimeoutSeconds: Int
  /// That a message has to become whole.
  let wholeWithinSeconds: Int
  /// What the messages are for.
  let application: any WebSocketApplication
  let budget: AssemblyBudget
  let work: TurnWork
  let inflater = MessageInflater()
  private var unfinished = UnfinishedMessages()

  init(
    for application: any WebSocketApplication, _ settings: Settings, _ budget: AssemblyBudget,
    _ work: TurnWork
  ) {
    self.application = application
    maximumMessageBytes = settings.maxEventBytes
    pongTimeoutSeconds = settings.websocketPongTimeoutSeconds
    wholeWithinSeconds = settings.requestBodyTimeoutSeconds
    self.budget = budget
    self.work = work
  }

  /// The state of a WebSocket that opens.
  func state(_ wanted: ConnectRequest, isDeflated: Bool) -> TransportState {
    let assembler = WebSocketAssembler(
      maximumMessageBytes: maximumMessageBytes, inflater: isDeflated ? inflater : nil)
    return .webSocket(
      Boxed(
        WebSocketState(
          hasCursors: wanted.wantsCursors, isDeflated: isDeflated, assembler: assembler,
          authorization: wanted.credentials.authorization)))
  }

  /// As `UnfinishedMessages.begun`.
  func begun(_ index: ConnectionIndex, second: UInt32) { unfinished.begun(index, second: second) }

  /// As `UnfinishedMessages.ended`.
  func ended(_ index: ConnectionIndex) { unfinished.ended(index) }

  /// Those whose message has begun and hasn't become whole in its time.
  func overdue(second: UInt32) -> [ConnectionIndex] {
    unfinished.overdue(after: wholeWithinSeconds, second: second)
  }
}

/// Which connections have begun a message that isn't whole, and since when. An ordinary message, which comes whole in one read, is never
/// in here.
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
