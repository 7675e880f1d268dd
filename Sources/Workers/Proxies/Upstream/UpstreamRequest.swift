// What is asked of an upstream: where it is, what is said to it, and how the body comes. Values, no I/O.

import NIOCore
import NIOHTTP1

/// Where an upstream listens; connections are kept for each of these.
struct UpstreamOrigin: Hashable, CustomStringConvertible {
  enum Scheme: String {
    case http, https
  }

  let scheme: Scheme
  /// A name or an address; IPv6 with or without brackets.
  let host: String
  let port: Int

  /// `host` without the brackets of an IPv6 address.
  var bareHost: String {
    host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
  }

  /// The address that `host` is, without asking anybody; nil for a name.
  var literalAddress: SocketAddress? { try? SocketAddress(ipAddress: bareHost, port: port) }

  var description: String {
    let host = bareHost
    return "\(scheme.rawValue)://\(host.contains(":") ? "[\(host)]" : host):\(port)"
  }
}

struct UpstreamRequest {
  enum Body: Equatable {
    /// No body and no framing field; nothing is written, `end` needn't be called.
    case none
    /// So many bytes, by `content-length`.
    case counted(Int)
    /// By `transfer-encoding: chunked`; may have trailers.
    case chunked
  }

  var origin: UpstreamOrigin
  var method: HTTPMethod
  /// Sent byte for byte.
  var target: String
  /// Sent as they are, `host` included. The framing field is added by the client and must not be here.
  var headers: HTTPHeaders
  var body = Body.none
  /// It changes nothing, whatever its method.
  var isQuestion = false
  /// It was sent before, by whoever sends it now.
  var isSecondTry = false

  /// Whether it may be sent a second time when it isn't known whether the first one was heard.
  var isRepeatable: Bool { !isSecondTry && (isQuestion || method.isIdempotent) }
}

/// Bounds and time-outs. Times are checked by `UpstreamClient.tick`: what is due is found at the next one.
struct UpstreamLimits {
  /// Name, connection and, for https, handshake; also the wait for a connection when there are `maximumPerOrigin`.
  var connectTimeoutNs: UInt64 = 5_000_000_000
  /// From the last byte of the request, or the last that the upstream took, to the head of the answer.
  var answerTimeoutNs: UInt64 = 5_000_000_000
  /// Between two pieces of an answer that is asked for; also how long a caller may take between two of a request's body.
  var idleTimeoutNs: UInt64 = 60_000_000_000
  /// After so long without use a connection is closed.
  var keepAliveNs: UInt64 = 30_000_000_000
  var maximumIdlePerOrigin = 100
  /// Connections to one origin: being made, in use, idle, and being closed.
  var maximumPerOrigin = 1000
  /// Connections to all origins together, each with a descriptor.
  var maximumOpen = Int.max
  /// Of a request's body, kept until its answer begins so that the request can be sent again. A longer one isn't.
  var maximumKeptBytes = 64 << 10
  /// ...of all requests together: what is kept for a rare case shall not be a worker's memory, whatever MAX_RETRY_BODY_BYTES says.
  var maximumKeptBytesInAll = 64 << 20
  /// Requests that wait for a connection to one origin.
  var maximumWaitingPerOrigin = 1000
  /// Status line and fields of an answer; trailers have the same bound.
  var maximumHeadBytes = 64 << 10
  /// Interim answers (1xx) to one request.
  var maximumInterimAnswers = 100
}

/// Learns what becomes of a request, on the client's loop, never before `begin` has returned. Any method of the exchange may
/// be called from here; all but `begin` may call back before they return.
///
///   upstreamWantsBody*  upstreamInformed*  ( upstreamAnswered upstreamSent* upstreamEnded
///                                          | upstreamUpgraded upstreamSent* upstreamEnded )      or, at any point, upstreamFailed
protocol UpstreamReceiver: AnyObject {
  /// The head is on its way: the body may be written. Called again when, after a `write` that said false, there is room.
  func upstreamWantsBody()
  /// An interim answer (1xx), but not 101.
  func upstreamInformed(_ head: HTTPResponseHead)
  /// The answer has begun; its fields are as they came, hop-by-hop ones included. An answer without a body ends
  /// without a further call; for any other `readMore` is called.
  func upstreamAnswered(_ head: HTTPResponseHead)
  /// One piece of the body, or of what comes through a tunnel: the answer to one `readMore`.
  func upstreamSent(_ bytes: ByteBuffer)
  /// The whole answer has come, or the upstream has ended its side of a tunnel: the last call.
  func upstreamEnded(_ trailers: HTTPHeaders)
  /// It went wrong: the last call.
  func upstreamFailed(_ failure: UpstreamFailure)
  /// 101: from here the exchange is a tunnel. `write`, `readMore`, `upstreamWantsBody` and `upstreamSent` carry raw bytes with the
  /// same push-back; `end` ends our side and `upstreamEnded` tells that the upstream has ended its; no time-out.
  func upstreamUpgraded(_ head: HTTPResponseHead)
}

/// Why there is no answer, or no whole one.
struct UpstreamFailure: Error, Equatable, CustomStringConvertible {
  enum Reason: Equatable {
    /// Name not found, connection refused, handshake failed.
    case unreachable(String)
    /// No connection in `connectTimeoutNs`.
    case connectTimeout
    /// No head of an answer in `answerTimeoutNs`.
    case noAnswer
    /// Nothing came in the middle of an answer for `idleTimeoutNs`.
    case stalled
    /// The upstream closed before or in the middle of an answer.
    case closedEarly(String)
    /// The answer breaks a rule of HTTP/1.1 or a bound.
    case malformed(String)
    /// The request can't be sent as it is, or its body isn't what was announced: the caller's fault.
    case badRequest(String)
    /// `maximumPerOrigin` connections are in use, and the queue is full or didn't move in `connectTimeoutNs`.
    case busy
    /// The client is closed.
    case closing
  }

  let reason: Reason
  /// Whether `upstreamAnswered` or `upstreamUpgraded` was called: it is too late for another answer to the client.
  let hasAnswerBegun: Bool

  var description: String {
    switch reason {
    case .unreachable(let detail): "the upstream can't be reached: \(detail)"
    case .connectTimeout: "no connection to the upstream in time"
    case .noAnswer: "no answer in time"
    case .stalled: "the answer stopped in the middle"
    case .closedEarly(let detail): "the upstream closed the connection \(detail)"
    case .malformed(let detail): "malformed answer: \(detail)"
    case .badRequest(let detail): "the request can't be sent: \(detail)"
    case .busy: "too many requests of the upstream are in progress"
    case .closing: "the client is closing"
    }
  }
}

extension HTTPMethod {
  /// RFC 9110 §9.2.2, for the methods that are defined there.
  var isIdempotent: Bool {
    switch self {
    case .GET, .HEAD, .OPTIONS, .PUT, .DELETE, .TRACE: true
    default: false
    }
  }
}
