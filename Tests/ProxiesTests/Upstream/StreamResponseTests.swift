// What a stream of HTTP/2 brings, without a connection: every frame in every state.

import HTTP
import NIOCore
import NIOHPACK
import Testing

@testable import Proxies

@Suite("15.5 Response on a stream of HTTP/2") struct StreamResponseTests {
  private static let interim: HPACKHeaders = [":status": "103"]
  private static let ok: HPACKHeaders = [":status": "200"]
  private static let counted: HPACKHeaders = [":status": "200", "content-length": "2"]
  private static let trailers: HPACKHeaders = ["x": "y"]

  private enum Event {
    case fields(HPACKHeaders, isEnd: Bool)
    case data(Int, isEnd: Bool)
    case gone
  }

  /// What has come before.
  private static let states: [(name: String, [Event])] = [
    ("head", []), ("body", [.fields(ok, isEnd: false)]),
    ("counted", [.fields(counted, isEnd: false), .data(1, isEnd: false)]),
    ("all there", [.fields(counted, isEnd: false), .data(2, isEnd: false)]),
    ("ended", [.fields(ok, isEnd: true)]),
  ]

  private static let events: [(name: String, Event)] = [
    ("interim", .fields(interim, isEnd: false)), ("interim at the end", .fields(interim, isEnd: true)),
    ("head", .fields(ok, isEnd: false)), ("head at the end", .fields(ok, isEnd: true)),
    ("counted at the end", .fields(counted, isEnd: true)), ("trailers", .fields(trailers, isEnd: true)),
    ("byte", .data(1, isEnd: false)), ("last byte", .data(1, isEnd: true)),
    ("only the end", .data(0, isEnd: true)), ("gone", .gone),
  ]

  /// By state, in the order of the events: what follows, asked until it is nothing, and the body bytes of both.
  private static let table: [String: [String]] = [
    "head": [
      "103, more", "refused", "200, more", "200, end", "refused", "refused", "refused", "refused", "refused",
      "lost",
    ],
    "body": [
      "refused", "refused", "refused", "refused", "refused", "x=y, end", "1, more", "1, end", "end", "lost",
    ],
    "counted": [
      "refused", "refused", "refused", "refused", "refused", "refused", "2, more", "2, end", "refused",
      "1, lost",
    ],
    "all there": [
      "refused", "refused", "refused", "refused", "refused", "2, x=y, end", "refused", "refused", "2, end",
      "2, lost",
    ],
    "ended": [
      "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused",
      "end",
    ],
  ]

  private static func apply(
    _ event: Event, to response: inout StreamResponse
  ) throws(StreamDefect) -> [String] {
    switch event {
    case .gone: return []
    case .data(let count, let isEnd):
      try response.receive(ByteBuffer(repeating: 0x61, count: count), isEnd: isEnd)
      return []
    case .fields(let fields, let isEnd):
      switch try response.receive(fields, isEnd: isEnd) {
      case .interim(let head), .final(let head): return ["\(head.status)"]
      case .trailers: return []
      }
    }
  }

  private static func follow(_ response: inout StreamResponse, isGone: Bool) -> [String] {
    var told: [String] = []
    while true {
      switch response.next(isWanted: true, isGone: isGone) {
      case .wait: return told
      case .read: return told + ["more"]
      case .deliver(let bytes): told.append("\(bytes.readableBytes)")
      case .finish(let trailers):
        return told + trailers.strings.map { "\($0.name)=\($0.value)" } + ["end"]
      case .lose: return told + ["lost"]
      }
    }
  }

  @Test("15.5 Every frame in every state") func everyFrameInEveryState() throws {
    for (name, before) in Self.states {
      let expected = try #require(Self.table[name])
      for (event, expected) in zip(Self.events, expected) {
        var response = StreamResponse(limits: UpstreamLimits(), isToHead: false)
        for each in before { _ = try Self.apply(each, to: &response) }
        let found: [String]
        do {
          let told = try Self.apply(event.1, to: &response)
          let isGone = if case .gone = event.1 { true } else { false }
          found = told + Self.follow(&response, isGone: isGone)
        } catch {
          found = ["refused"]
        }
        #expect(found.joined(separator: ", ") == expected, "\(name): \(event.name)")
      }
    }
  }

  @Test("15.5 The body waits until it is asked for; an end that is all that is missing is asked for unasked")
  func asking() throws {
    var response = StreamResponse(limits: UpstreamLimits(), isToHead: false)
    _ = try response.receive(Self.counted, isEnd: false)
    #expect(!response.isAwaitingHead && !response.isAwaitingEnd)
    guard case .wait = response.next(isWanted: false, isGone: false) else { return #expect(Bool(false)) }
    try response.receive(ByteBuffer(string: "ab"), isEnd: false)
    #expect(response.isAwaitingEnd)
    guard case .wait = response.next(isWanted: false, isGone: true) else { return #expect(Bool(false)) }
    guard case .deliver = response.next(isWanted: true, isGone: false) else { return #expect(Bool(false)) }
    guard case .read = response.next(isWanted: false, isGone: false) else { return #expect(Bool(false)) }
    try response.receive(ByteBuffer(), isEnd: true)
    guard case .finish = response.next(isWanted: false, isGone: true) else { return #expect(Bool(false)) }
  }
}
