// Records of proxied requests among the worker's log lines, in the form that LOG_FMT says. They are there because REQUEST_LOG asks
// for them, whatever LOG_LEVEL is. A thread of its own writes them: there may be many, and whoever reads them may be slow.

import Glibc
import IPC

public final class ConsoleRequestLog: RequestLogSink {
  /// The text of the field `message`.
  public static let message = "proxied request"
  /// Of the goodbye: a reader that is there has taken everything by then.
  private static let closingMilliseconds: CInt = 500

  private let output: LogOutput
  private let writer: LineWriter

  public init(_ context: WorkerContext) throws(IPCError) {
    output = LogOutput(
      worker: context.worker.kind.rawValue, slot: context.worker.place, format: context.settings.logFormat)
    let dropped = context.status.metric(
      .counter, "rig_request_log_dropped_total", labels: [("log", "console"), ("worker", context.name)])
    writer = try LineWriter(STDERR_FILENO, dropped: dropped)
  }

  public func log(_ record: RequestRecord) { writer.write(output.line(.info, Self.message, record.fields)) }

  public func close() { writer.close(patienceMilliseconds: Self.closingMilliseconds) }
}
