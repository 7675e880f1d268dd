// What is logged of one proxied request at its end (contract §8, REQUEST_LOG). The query isn't: it may hold tokens.
//
// On the console its fields stand one beside the other. In Kafka it is RIG's CloudEvent, with our fields beside RIG's three in `data`:
//
//   {"specversion":"1.0","type":"com.rig.proxy.api.call","source":"/rig","id":"…","time":"…","datacontenttype":"application/json",
//    "contenttype":"application/json","traceparent":"00-…","data":{
//     "endpoint":{"id":"get-book",…},"request_path":"/books/1","remote_ip":"192.0.2.1",
//     "method":"GET","api":"books","target":"http","response_from":"http","status":200,"complete":true,"duration_ms":12,
//     "bytes_in":0,"bytes_out":345}}

import Glibc
import IPC

public struct RequestRecord: Equatable, Sendable {
  /// Of a path; what is behind is left out, so that a record goes to the log in one piece.
  private static let mostPathBytes = 1024

  public var method = ""
  /// As the client asked for it.
  public var path = ""
  public var api = ""
  public var endpoint = ""
  /// The endpoint as its definition has it, as JSON; empty: only its id is known.
  public var endpointJSON: [UInt8] = []
  /// `http` or `kafka`.
  public var target = ""
  /// `http`, `kafka`, `http_async`, or empty.
  public var responseFrom = ""
  /// The client's address, behind proxies that are trusted.
  public var remote = ""
  /// That the client was answered; 0: it had gone before.
  public var status = 0
  /// Whether the client got its whole answer.
  public var isComplete = false
  public var durationMs: Int64 = 0
  /// Of the body that came from the client.
  public var bytesIn: Int64 = 0
  /// Of the body that went to the client.
  public var bytesOut: Int64 = 0
  public var traceparent = ""

  public init() {}

  /// For a line of the console.
  var fields: [(String, LogValue)] {
    [("method", .text(method)), ("path", .text(Self.bounded(path))), ("endpoint", .text(endpoint))]
      + [("remote", .text(remote))] + outcome + [("traceparent", .text(traceparent))]
  }

  /// What became of the request, of which RIG says nothing.
  private var outcome: [(String, LogValue)] {
    [
      ("api", .text(api)), ("target", .text(target)), ("response_from", .text(responseFrom)),
      ("status", .number(Int64(status))), ("complete", .flag(isComplete)),
      ("duration_ms", .number(durationMs)), ("bytes_in", .number(bytesIn)), ("bytes_out", .number(bytesOut)),
    ]
  }

  /// As RIG's CloudEvent.
  ///
  /// - Parameters:
  ///   - id: of the event; unique.
  ///   - time: of the request's end, RFC 3339.
  public func event(id: String, time: String) -> [UInt8] {
    let json = "application/json"
    // RIG's own is of version 0.2, where the attribute is called `contenttype`.
    var event = Self.object(
      [
        ("specversion", .text("1.0")), ("type", .text("com.rig.proxy.api.call")), ("source", .text("/rig")),
        ("id", .text(id)), ("time", .text(time)), ("datacontenttype", .text(json)),
        ("contenttype", .text(json)),
      ] + (traceparent.isEmpty ? [] : [("traceparent", .text(traceparent))]))
    let fields: [(String, LogValue)] = [
      ("request_path", .text(Self.bounded(path))), ("remote_ip", .text(remote)), ("method", .text(method)),
    ]
    event.removeLast()
    event += #","data":{"endpoint":"#.utf8
    event += endpointJSON.isEmpty ? Self.object([("id", .text(endpoint))]) : endpointJSON
    event.append(UInt8(ascii: ","))
    event += Self.object(fields + outcome).dropFirst()
    event.append(UInt8(ascii: "}"))
    return event
  }

  private static func object(_ members: [(String, LogValue)]) -> [UInt8] {
    var json = [UInt8(ascii: "{")]
    for (name, value) in members {
      if json.count > 1 { json.append(UInt8(ascii: ",")) }
      json.append(contentsOf: #""\#(name)":"#.utf8)
      value.append(to: &json)
    }
    json.append(UInt8(ascii: "}"))
    return json
  }

  private static func bounded(_ path: String) -> String {
    path.utf8.count <= mostPathBytes
      ? path : String(decoding: path.utf8.prefix(mostPathBytes), as: UTF8.self) + "…"
  }
}

/// Belongs to the worker's loop.
public protocol RequestLogSink: AnyObject {
  func log(_ record: RequestRecord)

  /// The worker ends: what is on its way may go out, for a moment.
  func close()
}

/// Records of proxied requests among the worker's log lines, in the form that LOG_FMT says. They are there because REQUEST_LOG asks
/// for them, whatever LOG_LEVEL is. A thread of its own writes them: there may be many, and whoever reads them may be slow.
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
