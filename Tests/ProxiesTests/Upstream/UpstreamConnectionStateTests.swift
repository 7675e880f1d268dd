// What one HTTP/1.1 connection does, without a socket: every event in every state, responses cut in every way, and what is no response.

import HTTP
import NIOCore
import TestSupport
import Testing

@testable import Proxies

/// A state and what came of it.
private struct Course {
  var state: UpstreamConnectionState
  var told: [String] = []

  init(_ limits: UpstreamLimits = UpstreamLimits()) { state = UpstreamConnectionState(limits) }

  /// Asks for what follows until that is nothing.
  mutating func run(isWanted: Bool = true, hasUnsent: Bool = false) {
    while true {
      switch state.next(isWanted: isWanted, hasUnsent: hasUnsent) {
      case .wait: return
      case .read: told.append("read")
      case .inform(let head), .upgrade(let head), .respond(let head): told.append("\(head.status)")
      case .deliver(let piece): told.append(piece.readableBytes == 0 ? "nothing" : String(buffer: piece))
      case .finish(let trailers, let isReusable):
        told += trailers.strings.map { "\($0.name)=\($0.value)" } + [isReusable ? "done" : "done, close"]
      case .finishWhole(let head, let body, let isReusable):
        told.append("\(head.status) whole: \(String(buffer: body))")
        told.append(isReusable ? "done" : "done, close")
      case .lose(let error): told.append("lost" + (error.map { ": \($0)" } ?? ""))
      case .refuse: told.append("refused")
      }
    }
  }

  mutating func receive(_ text: String, isWanted: Bool = true, hasUnsent: Bool = false) {
    if !state.receive(ByteBuffer(string: text)) { told.append("unasked") }
    run(isWanted: isWanted, hasUnsent: hasUnsent)
  }

  mutating func begin(_ request: UpstreamConnectionState.Request = .init()) {
    if !state.begin(request) { told.append("not idle") }
    run()
  }

  /// What has been told since this was asked last, and where that has led.
  mutating func take() -> String {
    defer { told = [] }
    return told.joined(separator: ", ") + " > " + place
  }

  private var place: String {
    if state.isIdle { return "idle" }
    if state.isTunnel { return "tunnel" }
    if state.isAwaitingHead { return "head" }
    return state.isClosed ? "closed" : "body"
  }
}

extension UpstreamConnectionState {
  fileprivate var isClosed: Bool {
    var state = self
    return !state.close()
  }
}

@Suite("15.5 State of a connection to an upstream") struct UpstreamConnectionStateTests {
  private typealias Request = UpstreamConnectionState.Request
  private static let upgrading = Request(mayUpgrade: true)
  private static let uploading = Request(mayUpgrade: true, body: .counted(3))

  // MARK: Every event in every state

  /// How each state is reached: a request, and what has come.
  private static let states: [(name: String, request: Request?, input: String)] = [
    ("idle", nil, ""),
    ("uploading", uploading, ""),
    ("asked", upgrading, ""),
    ("answered early", uploading, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nb"),
    ("counted", upgrading, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nb"),
    ("chunked", upgrading, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n"),
    ("unbounded", upgrading, "HTTP/1.1 200 OK\r\n\r\nb"),
    ("tunnel", upgrading, "HTTP/1.1 101 x\r\n\r\n"),
    ("tunnel, output ended", upgrading, "HTTP/1.1 101 x\r\n\r\n"),
    ("closed", upgrading, ""),
  ]

  private static let events: [(name: String, happen: @Sendable (inout Course) -> Void)] = [
    ("begin", { $0.begin() }),
    ("a byte", { $0.receive("a") }),
    ("200", { $0.receive("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na") }),
    ("103", { $0.receive("HTTP/1.1 103 x\r\n\r\n") }),
    ("101", { $0.receive("HTTP/1.1 101 x\r\n\r\n") }),
    ("junk", { $0.receive("?\r\n") }),
    (
      "request ended",
      {
        $0.state.endRequest()
        $0.run()
      }
    ),
    (
      "tunnel ended",
      {
        if !$0.state.endTunnel() { $0.told.append("no tunnel") }
        $0.run()
      }
    ),
    (
      "input ended",
      {
        $0.state.inputEnded()
        $0.run()
      }
    ),
    (
      "input failed",
      {
        $0.state.inputFailed("e")
        $0.state.inputEnded()
        $0.run()
      }
    ),
    (
      "input truncated",
      {
        $0.state.inputTruncated()
        $0.state.inputEnded()
        $0.run()
      }
    ),
    (
      "close",
      {
        if !$0.state.close() { $0.told.append("was closed") }
        $0.run()
      }
    ),
    (
      "read completed",
      {
        $0.state.readCompleted()
        $0.run()
      }
    ),
  ]

  /// By state, in the order of the events.
  private static let table: [String: [String]] = [
    "idle": [
      " > head", "unasked > closed", "unasked > closed", "unasked > closed", "unasked > closed",
      "unasked > closed", " > idle", "no tunnel > idle", " > closed", " > closed", " > closed", " > closed",
      "read > idle",
    ],
    "uploading": [
      "not idle > head", " > head", "200, a, done, close > closed", "103 > head", "refused > closed",
      "refused > closed", " > head", "no tunnel > head", "lost > closed", "lost: e > closed", "lost > closed",
      " > closed", "read > head",
    ],
    "asked": [
      "not idle > head", " > head", "200, a, done > idle", "103 > head", "101 > tunnel", "refused > closed",
      " > head", "no tunnel > head", "lost > closed", "lost: e > closed", "lost > closed", " > closed",
      "read > head",
    ],
    "answered early": [
      "not idle > body", "a, done, close > closed", "H, done, close > closed", "H, done, close > closed",
      "H, done, close > closed", "?, done, close > closed", " > body", "no tunnel > body", "lost > closed",
      "lost: e > closed", "lost > closed", " > closed", "read > body",
    ],
    "counted": [
      "not idle > body", "a, done > idle", "H, done, close > closed", "H, done, close > closed",
      "H, done, close > closed", "?, done, close > closed", " > body", "no tunnel > body", "lost > closed",
      "lost: e > closed", "lost > closed", " > closed", "read > body",
    ],
    "chunked": [
      "not idle > body", " > body", "refused > closed", "refused > closed", "refused > closed",
      "refused > closed", " > body", "no tunnel > body", "lost > closed", "lost: e > closed", "lost > closed",
      " > closed", "read > body",
    ],
    "unbounded": [
      "not idle > body", "a > body", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na > body",
      "HTTP/1.1 103 x\r\n\r\n > body", "HTTP/1.1 101 x\r\n\r\n > body", "?\r\n > body", " > body",
      "no tunnel > body", "done, close > closed", "lost: e > closed", "lost > closed", " > closed",
      "read > body",
    ],
    "tunnel": [
      "not idle > tunnel", "a > tunnel", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na > tunnel",
      "HTTP/1.1 103 x\r\n\r\n > tunnel", "HTTP/1.1 101 x\r\n\r\n > tunnel", "?\r\n > tunnel", " > tunnel",
      " > tunnel", "done, close > closed", "done, close > closed", "done, close > closed", " > closed",
      "read > tunnel",
    ],
    "tunnel, output ended": [
      "not idle > tunnel", "a > tunnel", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na > tunnel",
      "HTTP/1.1 103 x\r\n\r\n > tunnel", "HTTP/1.1 101 x\r\n\r\n > tunnel", "?\r\n > tunnel", " > tunnel",
      "no tunnel > tunnel", "done, close > closed", "done, close > closed", "done, close > closed",
      " > closed", "read > tunnel",
    ],
    "closed": [
      "not idle > closed", " > closed", " > closed", " > closed", " > closed", " > closed", " > closed",
      "no tunnel > closed", " > closed", " > closed", " > closed", "was closed > closed", " > closed",
    ],
  ]

  private static func reach(_ name: String, _ request: Request?, _ input: String) -> Course {
    var course = Course()
    course.run()
    if let request { course.begin(request) }
    course.receive(input)
    if name == "closed" { _ = course.state.close() }
    if name == "tunnel, output ended" { _ = course.state.endTunnel() }
    _ = course.take()
    return course
  }

  @Test("15.5 Every event in every state") func everyEventInEveryState() throws {
    for (name, request, input) in Self.states {
      let expected = try #require(Self.table[name])
      try #require(expected.count == Self.events.count)
      for (event, expected) in zip(Self.events, expected) {
        var course = Self.reach(name, request, input)
        event.happen(&course)
        let found = course.take()
        #expect(found == expected, "\(name): \(event.name)")
      }
    }
  }

  // MARK: Courses

  @Test("15.5 A connection is used again and again, and says so from its second exchange on")
  func reuse() {
    var course = Course()
    for isReused in [false, true, true] {
      course.begin()
      #expect(course.state.isReused == isReused)
      course.receive("HTTP/1.1 204 x\r\n\r\n")
      course.state.readCompleted()
      course.run()
      #expect(course.take().hasSuffix("204, done, read > idle"))
    }
  }

  @Test("15.5 One read is outstanding at a time, and none while nobody asks for the body")
  func reads() {
    var course = Course()
    course.run()
    course.begin()
    #expect(course.take() == "read > head")
    course.state.readCompleted()
    course.receive("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na", isWanted: false)
    #expect(course.take() == "200 > body")
    course.run()
    #expect(course.take() == "a, read > body")
    course.state.readCompleted()
    course.run(isWanted: false)
    #expect(course.take() == " > body")
    course.receive("bc", isWanted: false)
    course.state.inputEnded()
    course.run(isWanted: false)
    #expect(course.take() == " > body")
    course.run()
    #expect(course.take() == "bc, lost > closed")
  }

  @Test("15.5 What came before the end of the input is there until it is asked for")
  func held() {
    for (head, end) in [("content-length: 2\r\n", "done, close"), ("", "done, close")] {
      var course = Course()
      course.begin()
      course.receive("HTTP/1.1 200 OK\r\n\(head)\r\nab", isWanted: false)
      course.state.inputEnded()
      course.run(isWanted: false)
      #expect(course.take() == "read, 200 > body")
      course.run()
      #expect(course.take() == "ab, \(end) > closed")
    }
  }

  @Test("15.5 A connection isn't used again when something is left over, or either side says that it closes")
  func notReused() {
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    let cases: [(Request, String, hasUnsent: Bool, String)] = [
      (.init(), plain, false, "done > idle"),
      (.init(), plain, true, "done, close > closed"),
      (.init(closesConnection: true), plain, false, "done, close > closed"),
      (.init(), plain + "H", false, "done, close > closed"),
      (
        .init(), "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na", false,
        "done, close > closed"
      ),
      (.init(isHead: true), plain, false, "done, close > closed"),
    ]
    for (request, text, hasUnsent, expected) in cases {
      var course = Course()
      course.begin(request)
      course.receive(text, hasUnsent: hasUnsent)
      #expect(course.take().hasSuffix(expected), "\(text)")
    }
    var course = Course()
    course.begin(Self.uploading)
    course.state.endRequest()
    course.receive(plain)
    #expect(course.take().hasSuffix("done > idle"))
  }

  @Test("15.5 A response that has come whole is told at once, where the request lets it")
  func whole() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n"
    let cases: [(String, String)] = [
      ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "200 whole: abc, done > idle"),
      ("HTTP/1.1 204 x\r\n\r\n", "204 whole: , done > idle"),
      ("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n", "103, 204 whole: , done > idle"),
      (chunked + "\r\n", "200 whole: abc, done > idle"),
      ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", "200 whole: a, done, close > closed"),
      ("HTTP/1.1 204 x\r\n\r\n?", "204 whole: , done, close > closed"),
      // Not whole, with trailers, without an end, too long, or no body at all.
      ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", "200, ab > body"),
      (chunked + "x: y\r\n\r\n", "200, abc, x=y, done > idle"), (chunked, "200, abc > body"),
      ("HTTP/1.1 200 OK\r\n\r\na", "200, a > body"),
      ("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n" + String(repeating: "x", count: 101), "done > idle"),
      ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", "200, refused > closed"),
    ]
    for (text, expected) in cases {
      var course = Course()
      course.run()
      course.begin(.init(maximumWholeBytes: 100))
      _ = course.take()
      course.receive(text)
      let found = course.take()
      #expect(found.hasSuffix(expected) && (found.hasPrefix(expected) || text.utf8.count > 100), "\(text)")
      #expect(!(text.utf8.count > 140 && found.contains("whole")))
    }
  }

  /// Of one exchange at most one end is told, and nothing behind it; no read is asked for while one is outstanding; and what is
  /// delivered is what came.
  @Test("15.5 Whatever happens in whatever order, an exchange ends once", arguments: 0..<UInt64(20))
  func anyOrder(_ seed: UInt64) {
    var random = SeededRandom(seed: seed)
    for _ in 0..<200 {
      var course = Course()
      var isReading = false
      var isInProgress = false
      for _ in 0..<30 {
        let event = Self.events.randomElement(using: &random)
        let isClosed = course.state.isClosed
        if event?.name == "read completed" { isReading = false }
        if event?.name == "begin", course.state.isIdle { isInProgress = true }
        event?.happen(&course)
        for told in course.told {
          switch told {
          case "read":
            #expect(!isReading)
            isReading = true
          case "done", "done, close", "refused", "lost", "lost: e":
            #expect(isInProgress, "\(course.told)")
            isInProgress = false
          case "unasked", "not idle", "no tunnel", "was closed": break
          default: #expect(isInProgress, "\(course.told)")
          }
        }
        #expect(!isClosed || course.told.allSatisfy { ["not idle", "no tunnel", "was closed"].contains($0) })
        course.told = []
      }
    }
  }

  @Test("15.5 Body bytes are framed as the request says, and as they are in a tunnel")
  func framing() {
    var course = Course()
    #expect(!course.state.writesChunks)
    course.begin(.init(mayUpgrade: true, body: .chunked))
    #expect(course.state.writesChunks)
    course.state.endRequest()
    course.receive("HTTP/1.1 101 x\r\n\r\n")
    #expect(course.state.isTunnel && !course.state.writesChunks)
  }

  // MARK: Responses

  private struct Refused: Error {}

  /// What comes out of `text`, given in pieces; pieces of the body are joined.
  private func parse(
    _ pieces: [String], _ request: UpstreamConnectionState.Request = .init(),
    limits: UpstreamLimits = .init()
  ) throws(Refused) -> (steps: [String], isReusable: Bool) {
    var state = UpstreamConnectionState(limits)
    _ = state.begin(request)
    var (steps, body, isReusable, hasEnded): ([String], String, Bool, Bool) = ([], "", false, false)
    for piece in pieces + [""] {
      if piece.isEmpty { state.inputEnded() }
      _ = state.receive(ByteBuffer(string: piece))
      loop: while true {
        switch state.next(isWanted: true, hasUnsent: false) {
        case .wait, .read, .lose: break loop
        case .inform(let head): steps.append("interim \(head.status)")
        case .respond(let head): steps.append("answer \(head.status) \(fields(head.fields))")
        case .upgrade: steps.append("tunnel")
        case .deliver(let bytes):
          #expect(bytes.readableBytes > 0)
          body += String(buffer: bytes)
        case .finish(let trailers, let reusable):
          isReusable = reusable
          steps += piece.isEmpty ? ["open \(body)"] : ["body \(body)", "end \(fields(trailers))"]
          hasEnded = true
        case .finishWhole: steps.append("whole")
        case .refuse: throw Refused()
        }
      }
      if hasEnded { break }
    }
    return (steps, isReusable)
  }

  private func fields(_ headers: HTTPFields) -> String {
    headers.strings.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
  }

  @Test(
    "An answer is the same however it is cut",
    arguments: [
      (
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        ["answer 200 Content-Length=3", "body abc", "end "]
      ),
      (
        "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x=\"y\"\r\nbc\r\nA \r\n0123456789\r\n0\r\n\r\n",
        ["answer 200 Transfer-Encoding=Chunked", "body abc0123456789", "end "]
      ),
      (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
          + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: 1\r\nx-b:\t2 \r\n\r\n",
        [
          "interim 100", "interim 103", "answer 200 transfer-encoding=chunked", "body a", "end x-a=1&x-b=2",
        ]
      ),
      (
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        ["answer 204 content-length=5", "body ", "end "]
      ),
      ("HTTP/1.0 200 OK\r\nx : y\r\n\r\nrest", ["answer 200 x=y", "open rest"]),
      (
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 02\r\n\r\nab",
        ["answer 200 content-length=2", "body ab", "end "]
      ),
    ])
  func cuts(_ text: String, _ expected: [String]) throws {
    #expect(try parse([text]).steps == expected)
    #expect(try parse(text.utf8.map { String(decoding: [$0], as: UTF8.self) }).steps == expected)
    for index in text.indices.dropFirst() {
      #expect(try parse([String(text[..<index]), String(text[index...])]).steps == expected)
    }
  }

  @Test(
    "What isn't an answer is refused, however it is cut",
    arguments: [
      "hello\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n",
      "\r\n\r\n",
      "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n",
      "HTTP/1.1 200 OK\r\nx: y\n\r\n",
      "HTTP/1.1 200 OK\r\nx\r\n\r\n", "HTTP/1.1 200 OK\r\n: y\r\n\r\n", "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
      "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\u{0}b\r\n\r\n",
      "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", "HTTP/1.1 200 O\rK\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0x1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1,\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999999\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
      "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\nax\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1 1\r\na\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 1\r\n\r\n",
    ])
  func defects(_ text: String) {
    #expect(throws: Refused.self) { try parse([text]) }
    #expect(throws: Refused.self) { try parse(text.unicodeScalars.map { String($0) }) }
  }

  @Test("Heads, trailers, chunk lines and interim answers are bounded")
  func bounds() throws {
    var limits = UpstreamLimits()
    limits.maximumHeadBytes = 100
    limits.maximumInterimAnswers = 2
    let start = "HTTP/1.1 200 OK\r\nx: "
    func head(of bytes: Int) -> String {
      start + String(repeating: "y", count: bytes - start.utf8.count - "\r\n\r\n".utf8.count) + "\r\n\r\n"
    }
    #expect(try parse([head(of: 100)], limits: limits).steps.last == "open ")
    #expect(throws: Refused.self) { try parse([head(of: 101)], limits: limits) }
    // Without its end, too.
    #expect(throws: Refused.self) { try parse([String(repeating: "x", count: 101)], limits: limits) }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    #expect(throws: Refused.self) {
      try parse([chunked + "0\r\n" + String(repeating: "x: y\r\n", count: 20)], limits: limits)
    }
    #expect(throws: Refused.self) { try parse([chunked + "1;" + String(repeating: "x", count: 5000)]) }
    let interim = "HTTP/1.1 102 Processing\r\n\r\n"
    #expect(try parse([interim + interim], limits: limits).steps.count == 2)
    #expect(throws: Refused.self) { try parse([interim + interim + interim], limits: limits) }
  }

  @Test(
    "A connection lives on unless the answer says otherwise, or is ended by the connection",
    arguments: [
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: x , CLOSE\r\n\r\n", false),
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: closed\r\n\r\n", true),
      ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", false),
      ("HTTP/1.1 200 OK\r\n\r\n", false), ("HTTP/1.1 304 Not Modified\r\n\r\n", true),
    ])
  func keepsAlive(_ text: String, _ expected: Bool) throws {
    let found = try parse([text])
    #expect(found.isReusable == expected)
    #expect(found.steps.count >= 2)
  }

  @Test("A head keeps its phrase, and every octet of its values")
  func octets() {
    var state = UpstreamConnectionState(UpstreamLimits())
    _ = state.begin(.init())
    let head = Array("HTTP/1.1 299 Fine, mostly\r\nx: ".utf8) + [0xE9, 0xFF] + Array("\r\n\r\n".utf8)
    _ = state.receive(ByteBuffer(bytes: head))
    guard case .respond(let head) = state.next(isWanted: true, hasUnsent: false) else {
      return #expect(Bool(false))
    }
    #expect(head.status == 299 && head.reason == "Fine, mostly")
    #expect(head.fields.octets(of: "x").map(Array.init) == [0xE9, 0xFF])
  }
}
