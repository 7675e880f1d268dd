// The state of a connection of the front: every event in every phase, and random walks.

import NIOCore
import TestSupport
import Testing

@testable import HTTP

@Suite("15.5 State of a connection of the front") struct HTTPConnectionStateTests {
  private final class Stream: StreamedRequest {
    var body: StreamedBody
    var isBegun = false
    init(_ body: StreamedBody = StreamedBody()) { self.body = body }
  }

  private typealias State = HTTPConnectionState<Stream, String>

  private static let request = HTTPRequest(method: .GET, path: "/next")

  enum Phase: CaseIterable {
    case idle, waiting, awaiting, streaming, wanting, whole, leaving, finishing, lastFlushed, lingering, gone
  }

  private static func state(_ phase: Phase) -> State {
    var state = State()
    switch phase {
    case .idle: break
    case .waiting:
      _ = state.waitForTurn()
      _ = state.ready(request, .init())
      _ = state.turnCame()
    case .awaiting: state.await({}, hold: nil)
    case .streaming: state.begin(stream { _ in })
    case .wanting: state.begin(stream { _ = $0.body.ask() })
    case .whole: state.begin(stream { $0.body.end(trailers: [:]) })
    case .leaving: state.leave("owner")
    case .finishing: _ = state.finish(linger: true)
    case .lastFlushed:
      _ = state.finish(linger: true)
      _ = state.flush()
    case .lingering:
      _ = state.finish(linger: true)
      _ = state.flush()
      _ = state.lastTaken()
    case .gone: _ = state.end()
    }
    return state
  }

  private static func stream(_ change: (Stream) -> Void) -> Stream {
    let stream = Stream()
    stream.isBegun = true
    change(stream)
    return stream
  }

  private static func text(_ step: State.Step) -> String {
    switch step {
    case .handle(let request): "handle \(request.path)"
    case .decide: "decide"
    case .deliver: "deliver"
    case .leave: "leave"
    case .invite: "invite"
    case .parse: "parse"
    case .finish: "finish"
    case .close: "close"
    case .rest: "rest"
    }
  }

  /// Everything that a state says of itself and does with every event, each from a state of its own.
  private static func answers(_ phase: Phase) -> [String] {
    let state = state(phase)
    func after<Result>(_ body: (inout State) -> Result) -> Result {
      var copy = state
      return body(&copy)
    }
    let refused =
      switch state.refusing() {
      case .answer: "answer"
      case .fail: "fail"
      case .nothing: "nothing"
      }
    return [
      state.isListening ? "listens" : "deaf", state.isEnding ? "ends" : "lives",
      state.mayParse(.init()) ? "parses" : "", after { $0.mayRead(.init()) } ? "reads" : "",
      after { $0.mayRead(.init(isBehind: true)) } ? "reads behind" : "", "refuse: \(refused)",
      "ready: \(after { $0.ready(request, .init()) } == nil ? "no" : "yes")",
      "settle: \(after { $0.settle() } == nil ? "no" : "yes")",
      "endStream: \(after { $0.endStream() } == nil ? "no" : "yes")",
      "takeLeave: \(after { $0.takeLeave() }?.leave ?? "no")",
      "finish: \(after { $0.finish(linger: false) })", "flush: \(after { $0.flush() })",
      "lastTaken: \(after { $0.lastTaken() })", "inputEnded: \(after { $0.inputEnded(.init()) })",
      "next: \(text(after { $0.next(.init()) })), \(text(after { $0.next(.init(isUndecided: true)) })), "
        + text(after { $0.next(.init(isBehind: true)) }),
    ].filter { !$0.isEmpty }
  }

  private static let expectations: [(Phase, String)] = [
    (
      .idle,
      "listens|lives|parses|reads|refuse: answer|ready: yes|settle: no|endStream: no|takeLeave: no|finish: true"
        + "|flush: goOn|lastTaken: nothing|inputEnded: goOn|next: rest, decide, parse"
    ),
    (
      .waiting,
      "listens|lives|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: no|finish: true"
        + "|flush: goOn|lastTaken: nothing|inputEnded: goOn|next: handle /next, handle /next, handle /next"
    ),
    (
      .awaiting,
      "listens|lives|reads|refuse: nothing|ready: no|settle: yes|endStream: no|takeLeave: no|finish: true"
        + "|flush: goOn|lastTaken: nothing|inputEnded: close|next: rest, rest, rest"
    ),
    (
      .streaming,
      "listens|lives|refuse: fail|ready: no|settle: no|endStream: yes|takeLeave: no|finish: true"
        + "|flush: goOn|lastTaken: nothing|inputEnded: close|next: rest, rest, rest"
    ),
    (
      .wanting,
      "listens|lives|parses|reads|reads behind|refuse: fail|ready: no|settle: no|endStream: yes|takeLeave: no"
        + "|finish: true|flush: goOn|lastTaken: nothing|inputEnded: close|next: rest, rest, parse"
    ),
    (
      .whole,
      "listens|lives|reads|refuse: nothing|ready: no|settle: no|endStream: yes|takeLeave: no|finish: true"
        + "|flush: goOn|lastTaken: nothing|inputEnded: close|next: deliver, deliver, deliver"
    ),
    (
      .leaving,
      "deaf|lives|reads|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: owner|finish: false"
        + "|flush: goOn|lastTaken: nothing|inputEnded: goOn|next: leave, leave, leave"
    ),
    (
      .finishing,
      "deaf|ends|reads|reads behind|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: no"
        + "|finish: false|flush: last|lastTaken: linger|inputEnded: goOn|next: rest, rest, rest"
    ),
    (
      .lastFlushed,
      "deaf|ends|reads|reads behind|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: no"
        + "|finish: false|flush: nothing|lastTaken: linger|inputEnded: goOn|next: rest, rest, rest"
    ),
    (
      .lingering,
      "deaf|ends|reads|reads behind|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: no"
        + "|finish: false|flush: nothing|lastTaken: nothing|inputEnded: close|next: rest, rest, rest"
    ),
    (
      .gone,
      "deaf|ends|reads|reads behind|refuse: nothing|ready: no|settle: no|endStream: no|takeLeave: no"
        + "|finish: false|flush: nothing|lastTaken: nothing|inputEnded: goOn|next: rest, rest, rest"
    ),
  ]

  @Test("Every event in every phase", arguments: expectations)
  func phases(_ phase: Phase, _ expected: String) {
    #expect(Self.answers(phase).joined(separator: "|") == expected)
    #expect(Self.expectations.count == Phase.allCases.count)
  }

  @Test(
    "Nothing goes to the responder while what was written isn't taken, the turn has no time, or too much waits"
  )
  func heldBack() {
    for hold in [{ $0.writable(false) }, { _ = $0.waitForTurn() }] as [(inout State) -> Void] {
      var state = State()
      hold(&state)
      #expect(!state.mayParse(.init()) && !state.mayDecide(.init()))
      let isReady = state.ready(Self.request, .init()) != nil
      let step = Self.text(state.next(.init()))
      #expect(!isReady && step == "rest")
      state.writable(true)
      _ = state.turnCame()
      let full = Self.text(state.next(.init(hasRoom: false)))
      let handled = Self.text(state.next(.init()))
      let after = Self.text(state.next(.init()))
      #expect(full == "rest" && handled == "handle /next" && after == "rest")
    }
  }

  @Test("A read that was held back is made up for once")
  func owedReads() {
    var state = State()
    let reads = [
      state.takeOwedRead(), state.mayRead(.init(isBehind: true)), state.takeOwedRead(), state.takeOwedRead(),
    ]
    #expect(reads == [false, false, true, false])
  }

  @Test("100 Continue goes out once, when more of the body may come, and not to a body that has come")
  func invitation() {
    var state = State()
    state.oweInvitation()
    state.writable(false)
    let early = Self.text(state.next(.init(isReceiving: true)))
    state.writable(true)
    let invited = Self.text(state.next(.init(isReceiving: true)))
    let again = Self.text(state.next(.init(isReceiving: true)))
    #expect(early == "rest" && invited == "invite" && again == "rest")
    state.oweInvitation()
    let late = Self.text(state.next(.init(isReceiving: false)))
    #expect(late == "rest")
  }

  @Test(
    "A client that has ended its side gets what it asked for, and then the end; one that lingers, the end at once"
  )
  func endOfInput() {
    var state = State()
    _ = state.inputEnded(.init())
    let steps = [Self.text(state.next(.init(isBehind: true))), Self.text(state.next(.init()))]
    #expect(steps == ["parse", "finish"])
    _ = state.finish(linger: true)
    _ = state.flush()
    let last = state.lastTaken()
    #expect(last == .close)
    var receiving = State()
    let cut = receiving.inputEnded(.init(isReceiving: true))
    #expect(cut == .close)
    var streaming = Self.state(.wanting)
    _ = streaming.inputEnded(.init())
    let closing = Self.text(streaming.next(.init()))
    #expect(closing == "close")
    var leaving = Self.state(.leaving)
    _ = leaving.inputEnded(.init())
    let isGiven = leaving.takeLeave() != nil
    #expect(!isGiven)
  }

  @Test("What was going on is told once when the connection ends")
  func ends() {
    for phase in Phase.allCases {
      var state = Self.state(phase)
      let rest = state.end()
      #expect((rest == nil) == (phase == .gone))
      #expect((rest?.onClientGone != nil) == (phase == .awaiting))
      #expect((rest?.stream != nil) == [.streaming, .wanting, .whole].contains(phase))
      #expect((rest?.leave != nil) == (phase == .leaving))
      let again = state.end()
      #expect(again == nil && !state.isListening && state.isEnding)
    }
  }
}
