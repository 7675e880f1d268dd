// What a responder gives for a request that it wants to handle as it comes, instead of getting it whole.
//
//   exchange(for:) ─▶ begin ─▶ ( readBody ▶ received )… ─▶ receivedEnd          the request, as fast as it is asked for
//                        └──▶ informational… head ( write )… end                the answer, whenever the exchange likes
//   at any time:  clientGone                                                    the last call, unless the answer has ended
//
// Everything here happens on the server's event loop. None of these functions is called from within a function of
// AnswerStream, so an exchange may call that one from anywhere without being entered twice.

import NIOCore
import NIOHTTP1

/// Takes the body of one request as it comes and answers as it likes. Lives until its answer has ended or the client has gone;
/// nothing is called after that.
public protocol StreamedExchange: AnyObject {
  /// The first call. `answer` is how the exchange asks for the body and answers; keep it.
  func begin(_ answer: AnswerStream)

  /// Some of the body, not empty and at most `AnswerStream.maxPieceBytes`: one call for one `readBody()`.
  func received(_ bytes: ByteBuffer)

  /// The body is complete, or there was none. Comes by itself as soon as it is known and everything before it was received, with a
  /// `readBody()` outstanding or without. Trailer fields that must not be trailers (RFC 9110 §6.5.1) are gone.
  func receivedEnd(trailers: HTTPHeaders)

  /// The client has taken what was written: go on. Only after `write` has said false, once for each time.
  func canWrite()

  /// The client has gone, or broke the protocol or was too slow in the middle of its body, or the server gives up. Nothing more
  /// is called, nothing more can be written. An exchange that has not begun is let go without this call.
  func clientGone()
}
