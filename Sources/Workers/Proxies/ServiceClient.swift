// One HTTP request to a service, and what came of it, by async-http-client. Redirects aren't followed: credentials would
// go to a place that nobody has configured.

import AsyncHTTPClient
import Kit
import NIOCore
import NIOHTTP1

final class ServiceClient {
  /// Of an answer whose body matters, such as a JWK set.
  static let maximumAnswerBytes = 512 << 10

  private let client: HTTPClient
  private let loop: EventLoop

  init(loop: EventLoop, maximumConnections: Int) {
    var configuration = HTTPClient.Configuration(
      redirectConfiguration: .disallow, decompression: .disabled)
    configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = maximumConnections
    // Whoever waits wants to know at once, and comes again.
    configuration.connectionPool.retryConnectionEstablishment = false
    // A proxy of the environment isn't used: where credentials go is said by the configuration alone.
    configuration.proxy = nil
    client = HTTPClient(eventLoopGroupProvider: .shared(loop), configuration: configuration)
    self.loop = loop
  }

  /// Begins `call` of `url`. `body` is called once, on the loop, unless the call is cancelled by the result.
  func begin(
    _ call: ServiceCall, url: String, deadline: NIODeadline, _ body: @escaping (CallOutcome) -> Void
  ) -> (() -> Void)? {
    let request: HTTPClient.Request
    do {
      request = try HTTPClient.Request(
        url: url, method: call.body.isEmpty ? .GET : .POST, headers: Self.headers(call),
        body: call.body.isEmpty ? nil : .byteBuffer(ByteBuffer(bytes: call.body)))
    } catch {
      body(.unreachable("\(error)"))
      return nil
    }
    let keepsBody = call.purpose == .keySet
    let collector = AnswerCollector(keepsBody: keepsBody, maximumBytes: Self.maximumAnswerBytes)
    let task = client.execute(
      request: request, delegate: collector, eventLoop: .delegateAndChannel(on: loop), deadline: deadline)
    task.futureResult.hop(to: loop).assumeIsolated().whenComplete { result in
      body(Self.outcome(result, isLate: NIODeadline.now() >= deadline))
    }
    return { task.cancel() }
  }

  private static func headers(_ call: ServiceCall) -> HTTPHeaders {
    var headers = HTTPHeaders([("accept", "application/json"), ("user-agent", "rig")])
    if !call.body.isEmpty { headers.add(name: "content-type", value: "application/json") }
    for value in call.authorization { headers.add(name: "authorization", value: value) }
    if !call.traceparent.isEmpty { headers.add(name: "traceparent", value: call.traceparent) }
    if let state = call.tracestate { headers.add(name: "tracestate", value: state) }
    return headers
  }

  private static func outcome(_ result: Result<AnswerCollector.Answer, any Error>, isLate: Bool)
    -> CallOutcome
  {
    switch result {
    case .success(let answer): return .answered(status: answer.status, body: answer.body)
    case .failure(let error):
      switch error as? HTTPClientError {
      case .readTimeout?, .writeTimeout?: return .timedOut
      // A connection that never came to be isn't a service that was asked.
      case .deadlineExceeded?: return .timedOut
      case .connectTimeout?, .getConnectionFromPoolTimeout?: return .unreachable("no connection in time")
      default: return isLate ? .timedOut : .unreachable("\(error)")
      }
    }
  }

  func close() -> EventLoopFuture<Void> {
    let promise = loop.makePromise(of: Void.self)
    client.shutdown { error in
      if let error { promise.fail(error) } else { promise.succeed(()) }
    }
    return promise.futureResult
  }
}

/// Keeps the status, and of the body what matters; what doesn't is let by, so that the connection can be used again.
private final class AnswerCollector: HTTPClientResponseDelegate, @unchecked Sendable {
  struct Answer: Sendable {
    var status: UInt16 = 0
    var body: [UInt8] = []
  }

  struct TooLarge: Error, CustomStringConvertible {
    let limit: Int
    var description: String { "its answer has more than \(limit) bytes" }
  }

  private let keepsBody: Bool
  private let maximumBytes: Int
  // Touched on the task's loop only.
  private var answer = Answer()
  private var received = 0

  init(keepsBody: Bool, maximumBytes: Int) {
    self.keepsBody = keepsBody
    self.maximumBytes = maximumBytes
  }

  func didReceiveHead(task: HTTPClient.Task<Answer>, _ head: HTTPResponseHead) -> EventLoopFuture<Void> {
    answer.status = UInt16(clamping: head.status.code)
    return task.eventLoop.makeSucceededVoidFuture()
  }

  func didReceiveBodyPart(task: HTTPClient.Task<Answer>, _ buffer: ByteBuffer) -> EventLoopFuture<Void> {
    guard keepsBody else { return task.eventLoop.makeSucceededVoidFuture() }
    received += buffer.readableBytes
    guard received <= maximumBytes else {
      return task.eventLoop.makeFailedFuture(TooLarge(limit: maximumBytes))
    }
    answer.body.append(contentsOf: buffer.readableBytesView)
    return task.eventLoop.makeSucceededVoidFuture()
  }

  func didFinishRequest(task: HTTPClient.Task<Answer>) throws -> Answer { answer }
}
