// What a client of HTTP/2 sends, frame by frame, on its way to NIO's handler: lets NIO take large heads from the first one on, and bounds
// what it keeps of heads that aren't whole.
//
//   preface SETTINGS │ HEADERS CONTINUATION … │ SETTINGS(ack) │ SETTINGS(ack) …
//                    └ an ack of our first settings is put in └ and taken out, when the client's comes
//
// NIO decodes heads of up to 16 KiB until the client has acknowledged that there may be more, and ends the connection at a larger one. But
// every client sends its first requests before it knows what we take, and 431 is an answer to a request. So NIO is told at once
// that its first settings, which only allow, are acknowledged.

import NIOCore

final class HTTP2Intake: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private let server: HTTPServer
  private let edge: HTTP2Edge
  private let share: AssemblyShare
  private var context: ChannelHandlerContext?
  private var frames = HTTP2FrameReader()
  /// The beginning of a frame's head.
  private var held = ByteBuffer()
  /// Our first settings count as acknowledged for NIO, or do so for the client too.
  private var isAckGiven = false
  private var isAckTaken = false
  /// Of a request head that isn't whole; nil: there is none.
  private var unfinishedHead: (sinceTick: Int, bytes: Int)?
  private var hold: AssemblyHold?
  /// What isn't whole has become too much for the worker.
  private(set) var isOverfull = false

  init(server: HTTPServer, edge: HTTP2Edge, share: AssemblyShare) {
    self.server = server
    self.edge = edge
    self.share = share
  }

  /// Whether a request head takes too long.
  func isHeadOverdue(at tick: Int) -> Bool {
    unfinishedHead.map { tick - $0.sinceTick >= server.limits.headSeconds } ?? false
  }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    self.context = nil
    hold = nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if held.readableBytes > 0 {
      held.writeBuffer(&bytes)
      bytes = held
      held = ByteBuffer()
    }
    var seen = 0
    while seen < bytes.readableBytes {
      switch frames.read(bytes, at: bytes.readerIndex + seen) {
      case .some(let count):
        seen += count
      case .frame(let head):
        if isAckOwed, head.isSettingsAck {
          isAckTaken = true
          pass(bytes.readSlice(length: seen), context)
          bytes.moveReaderIndex(forwardBy: HTTP2FrameHead.length)
          seen = 0
        } else {
          seen += HTTP2FrameHead.length
          begun(head)
        }
      case .incomplete:
        pass(bytes.readSlice(length: seen), context)
        held.writeBuffer(&bytes)
        return
      }
      guard let head = frames.takeEnded() else { continue }
      ended(head)
      guard !isAckGiven else { continue }
      isAckGiven = true
      guard head.isSettings else { continue }
      pass(bytes.readSlice(length: seen), context)
      seen = 0
      pass(ByteBuffer(bytes: HTTP2FrameHead.settingsAck), context)
    }
    pass(bytes, context)
  }

  /// The client's acknowledgement of what NIO takes for acknowledged has yet to come.
  private var isAckOwed: Bool { isAckGiven && !isAckTaken }

  private func pass(_ bytes: ByteBuffer?, _ context: ChannelHandlerContext) {
    guard let bytes, bytes.readableBytes > 0, self.context != nil, !edge.isDeaf else { return }
    context.fireChannelRead(wrapInboundOut(bytes))
  }

  private func begun(_ head: HTTP2FrameHead) {
    if head.isHeaders {
      unfinishedHead = (server.tick, head.payloadBytes)
    } else if head.isContinuation, let unfinished = unfinishedHead {
      unfinishedHead = (unfinished.sinceTick, unfinished.bytes + head.payloadBytes)
    }
    // What fits into one frame is nobody's hoard.
    guard let bytes = unfinishedHead?.bytes, bytes > HTTP2Limits.frameBytes else { return }
    let hold = hold ?? AssemblyHold(share)
    self.hold = hold
    if hold.resize(to: bytes) != nil { isOverfull = true }
  }

  private func ended(_ head: HTTP2FrameHead) {
    guard head.isHeaders || head.isContinuation, head.endsHeaders else { return }
    unfinishedHead = nil
    hold = nil
  }
}

/// The head of a frame (RFC 9113 §4.1).
struct HTTP2FrameHead: Equatable {
  static let length = 9
  /// SETTINGS without settings, acknowledging.
  static let settingsAck: [UInt8] = [0, 0, 0, settingsType, ackFlag, 0, 0, 0, 0]
  private static let headersType: UInt8 = 1
  private static let settingsType: UInt8 = 4
  private static let continuationType: UInt8 = 9
  private static let ackFlag: UInt8 = 1
  private static let endHeadersFlag: UInt8 = 4

  let payloadBytes: Int
  private let type: UInt8
  private let flags: UInt8

  /// nil: there is less than a head at that index.
  init?(_ bytes: ByteBuffer, at index: Int) {
    guard index + Self.length <= bytes.writerIndex, let word = bytes.getInteger(at: index, as: UInt32.self),
      let flags = bytes.getInteger(at: index + 4, as: UInt8.self)
    else { return nil }
    payloadBytes = Int(word >> 8)
    type = UInt8(truncatingIfNeeded: word)
    self.flags = flags
  }

  var isHeaders: Bool { type == Self.headersType }
  var isContinuation: Bool { type == Self.continuationType }
  var endsHeaders: Bool { flags & Self.endHeadersFlag != 0 }
  var isSettings: Bool { type == Self.settingsType && flags & Self.ackFlag == 0 }
  /// One that has a payload is wrong (RFC 9113 §6.5), and NIO's to say so.
  var isSettingsAck: Bool { type == Self.settingsType && flags & Self.ackFlag != 0 && payloadBytes == 0 }
}

/// Finds the frames in what a client sends. Pure; looks at no payload.
struct HTTP2FrameReader {
  enum Step: Equatable {
    /// So many bytes of the preface or of a payload.
    case some(Int)
    case frame(HTTP2FrameHead)
    /// Less than the head of a frame.
    case incomplete
  }

  private static let prefaceBytes = 24

  /// Of the preface, or of the payload of `current`.
  private var left = Self.prefaceBytes
  private var current: HTTP2FrameHead?
  private var isEndNew = false

  /// What is at that index, which is where the last step has ended.
  mutating func read(_ bytes: ByteBuffer, at index: Int) -> Step {
    if left > 0 {
      let count = min(left, bytes.writerIndex - index)
      left -= count
      isEndNew = left == 0
      return .some(count)
    }
    guard let head = HTTP2FrameHead(bytes, at: index) else { return .incomplete }
    current = head
    left = head.payloadBytes
    isEndNew = left == 0
    return .frame(head)
  }

  /// The frame that the last step has ended; nil: it has ended none.
  mutating func takeEnded() -> HTTP2FrameHead? {
    guard isEndNew else { return nil }
    isEndNew = false
    return current
  }
}

/// The first bytes of a client that speaks HTTP/2 with prior knowledge (RFC 9113 §3.4), chosen so that no request of HTTP/1 begins
/// like them. Pure.
enum HTTP2Preface {
  enum Match {
    /// HTTP/1, or nonsense.
    case absent
    /// So far it is one; more has to come.
    case begun
    case whole
  }

  private static let text: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

  /// What the first bytes of a connection begin with.
  static func match(_ bytes: ByteBufferView) -> Match {
    let preface = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    guard zip(bytes, preface).allSatisfy({ $0 == $1 }) else { return .absent }
    return bytes.count >= preface.count ? .whole : .begun
  }
}
