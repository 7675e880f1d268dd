// The gateway's log as values.

extension Gateway {
  /// The lines that are whole.
  var logLines: [JSON] {
    log.split(separator: "\n").compactMap { try? JSON(parsing: String($0)) }
  }

  /// Lines with this message, in order.
  func logged(_ message: String) -> [JSON] {
    logLines.filter { $0["message"]?.string == message }
  }

  /// Names of the workers that have stopped, in the order of the log.
  var stoppedWorkers: [String] {
    logged("worker has stopped").compactMap { $0["child"]?.string }
  }
}

extension GatewayRun {
  /// Lines with this message, in order.
  func logged(_ message: String) -> [JSON] {
    output.split(separator: "\n").compactMap { try? JSON(parsing: String($0)) }
      .filter { $0["message"]?.string == message }
  }
}
