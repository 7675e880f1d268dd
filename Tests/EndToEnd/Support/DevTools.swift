// One page of a browser, by the DevTools protocol: JSON over a WebSocket, each command answered under its id, events
// in between.

import Foundation

final class DevTools {
  /// What the page has told without being asked, in order: `{"method":…,"params":…}`.
  private(set) var events: [JSON] = []
  private let wire: Wire
  private var lastID = 0

  /// Connects to the page whose DevTools address is `path` at `port`.
  init(port: Int, path: String) throws {
    let connection = try HTTPConnection(port: port)
    wire = connection.wire
    try wire.send(HTTPConnection.request("GET", path, headers: WebSocketClient.upgrade))
    let head = try connection.head()
    guard head.status == 101 else { throw TestFailure("DevTools refuses: \(head.status)") }
  }

  /// Sends a command and reads its answer.
  @discardableResult
  func call(_ method: String, _ parameters: JSON = [:]) throws -> JSON {
    lastID += 1
    let id = lastID
    let command: JSON = ["id": .number(Double(id)), "method": .string(method), "params": parameters]
    try wire.send(WebSocketFrame.text(command.description).encoded())
    let deadline = Deadline()
    while true {
      let frame = try wire.receive("the answer to \(method)", deadline) { try WebSocketFrame.take(from: &$0) }
      guard frame.opcode == WebSocketFrame.Opcode.text else { continue }
      let message = try JSON(parsing: frame.payload)
      guard message["id"]?.integer == id else {
        events.append(message)
        continue
      }
      if let error = message["error"] { throw TestFailure("\(method): \(error)") }
      return message["result"] ?? .null
    }
  }

  /// The value of a JavaScript expression in the page; a promise is waited for.
  @discardableResult
  func evaluate(_ expression: String) throws -> JSON {
    let answer = try call(
      "Runtime.evaluate",
      ["expression": .string(expression), "returnByValue": true, "awaitPromise": true])
    if let exception = answer["exceptionDetails"] { throw TestFailure("\(expression): \(exception)") }
    return answer["result"]?["value"] ?? .null
  }

  /// Waits until the expression is true in the page.
  func wait(_ what: String, until expression: String) throws {
    try eventually("in the page: \(what)") { try evaluate("Boolean(\(expression))") == true }
  }

  /// The parameters of all events of that name so far.
  func all(_ method: String) -> [JSON] {
    events.filter { $0["method"]?.string == method }.compactMap { $0["params"] }
  }
}
