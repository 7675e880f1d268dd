// A connection's state that is written and read again, at any moment, goes on as if nothing had happened; what nobody can have
// written is refused.

import NIOCore
import TestSupport
import Testing

@testable import Connections
@testable import Kit

@Suite("15.6 Connection state")
struct ConnectionStateTests {
  private static let limit = 3000
  private static let stamp = Stamp(unixMs: 0, high: 1, low: 2)
  private static let sessionLimits = LongPollSession.Limits(
    maximumEvents: 6, maximumBytes: 400, maximumAnswerBytes: 120, waitNs: 20, idleNs: 50)
  private static var surroundings: ConnectionState.Surroundings {
    ConnectionState.Surroundings(
      maximumMessageBytes: limit, inflater: MessageInflater(), longPolling: sessionLimits)
  }

  private static func decoded(_ bytes: [UInt8]) throws(ConnectionStateError) -> ConnectionState {
    try ConnectionState(decoding: bytes, surroundings)
  }

  /// The state as another worker has it.
  private static func rewritten(_ state: ConnectionState) throws -> ConnectionState {
    let bytes = state.encoded
    let read = try decoded(bytes)
    #expect(read.encoded == bytes)
    return read
  }

  private static func webSocket(hasCursors: Bool = false, isDeflated: Bool = false) -> ConnectionState {
    let assembler = WebSocketAssembler(
      maximumMessageBytes: limit, inflater: isDeflated ? surroundings.inflater : nil)
    let state = WebSocketState(
      hasCursors: hasCursors, isDeflated: isDeflated, assembler: assembler, authorization: ["Bearer a", ""])
    return ConnectionState(serial: 7, .webSocket(Boxed(state)))
  }

  private static func session() -> ConnectionState {
    let session = LongPollSession(
      limits: sessionLimits, cursor: Cursor(epoch: 9, positions: [1, 0, 2]), nowNs: 3)
    return ConnectionState(serial: .max, .longPolling(Boxed(session)))
  }

  // MARK: WebSocket

  /// What a client sends: messages of both kinds in fragments, with control frames between them, some compressed; at last it closes,
  /// or breaks a rule.
  private static func traffic(_ random: inout SeededRandom, isDeflated: Bool) -> [UInt8] {
    var bytes: [UInt8] = []
    func append(_ opcode: UInt8, _ payload: [UInt8], fin: Bool = true, reserved: UInt8 = 0) {
      let mask = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
      bytes += ClientFrame(opcode: opcode, payload: payload, fin: fin, reserved: reserved, mask: mask).bytes
    }
    let deflater = MessageDeflater()
    for _ in 0..<Int.random(in: 1...12, using: &random) {
      let text = String(
        (0..<Int.random(in: 0...300, using: &random)).map { _ in "aé€😀 ".randomElement(using: &random) ?? "a"
        })
      var payload = Array(text.utf8)
      let isText = Bool.random(using: &random)
      var reserved: UInt8 = 0
      if isDeflated, let deflated = payload.withUnsafeBytes({ deflater.deflate([$0]) }) {
        (payload, reserved) = (deflated, 4)
      }
      var opcode: UInt8 = isText ? 1 : 2
      while Bool.random(using: &random), !payload.isEmpty {
        let count = Int.random(in: 0...payload.count, using: &random)
        append(opcode, Array(payload.prefix(count)), fin: false, reserved: reserved)
        payload.removeFirst(count)
        (opcode, reserved) = (0, 0)
        if Bool.random(using: &random) { append(9, [UInt8](repeating: 5, count: count % 126)) }
      }
      append(opcode, payload, reserved: reserved)
      if Int.random(in: 0..<4, using: &random) == 0 { append(10, []) }
    }
    switch Int.random(in: 0..<4, using: &random) {
    case 0: append(8, [0x03, 0xE8] + Array("bye".utf8))
    case 1: append(1, [0x61, 0xFF])
    case 2: append(2, [UInt8](repeating: 0, count: limit + 1))
    default: break
    }
    return bytes
  }

  /// Everything that is left to read, in as many steps as the assembler likes.
  private static func read(_ state: inout ConnectionState) -> [WebSocketAction] {
    var actions: [WebSocketAction] = []
    while state.transport.webSocket?.value.hasUnread == true {
      state.transport.withWebSocket { $0.read(into: &actions) }
    }
    return actions
  }

  @Test(
    "15.6 a WebSocket goes on in the middle of its client's frames, fragments and characters",
    arguments: 1...40 as ClosedRange<UInt64>)
  func frames(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let isDeflated = seed % 2 == 0
    let bytes = Self.traffic(&random, isDeflated: isDeflated)
    var undisturbed = Self.webSocket(isDeflated: isDeflated)
    var moved = undisturbed
    var expected: [WebSocketAction] = []
    var actions: [WebSocketAction] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let most = Bool.random(using: &random) ? 3 : 700
      let piece = rest.prefix(Int.random(in: 1...most, using: &random))
      rest = rest.dropFirst(piece.count)
      undisturbed.transport.withWebSocket { $0.take(ByteBuffer(bytes: piece)) }
      moved.transport.withWebSocket { $0.take(ByteBuffer(bytes: piece)) }
      if Bool.random(using: &random) { moved = try Self.rewritten(moved) }
      // Some pieces are left unread for a while.
      guard Int.random(in: 0..<4, using: &random) > 0 || rest.isEmpty else { continue }
      expected += Self.read(&undisturbed)
      actions += Self.read(&moved)
      moved = try Self.rewritten(moved)
      let (one, other) = (undisturbed.transport.webSocket?.value, moved.transport.webSocket?.value)
      #expect(one?.keptBytes == other?.keptBytes)
      #expect(one?.assembler.isUnfinished == other?.assembler.isUnfinished)
    }
    #expect(actions == expected)
    #expect(!expected.isEmpty)
  }

  @Test("15.6 what a WebSocket's client has said and what it was told is kept", arguments: [false, true])
  func webSocketRest(isDeflated: Bool) throws {
    var state = Self.webSocket(hasCursors: true, isDeflated: isDeflated)
    var held = HeldMessages(checking: [1, 2])
    let isHeld = [held.add([3], isText: true), held.add([], isText: false)]
    #expect(isHeld == [true, true])
    state.transport.withWebSocket { socket in
      socket.held = held
      socket.toldCursor = Cursor(epoch: 5, positions: [0, 8])
      socket.hasInputEnded = true
      socket.hasClientClosed = true
    }
    let read = try #require(try Self.rewritten(state).transport.webSocket?.value)
    #expect(read.held == held && read.held?.keptBytes == 3)
    #expect(read.toldCursor == Cursor(epoch: 5, positions: [0, 8]))
    #expect(read.hasInputEnded && read.hasClientClosed && read.authorization == ["Bearer a", ""])
    #expect(read.hasCursors && read.isDeflated == isDeflated)
  }

  // MARK: Long-polling

  @Test(
    "15.6 a long-polling session gives the same answers, and loses and repeats nothing",
    arguments: 1...40 as ClosedRange<UInt64>)
  func polls(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var undisturbed = Self.session()
    var moved = undisturbed
    var own = Cursor(epoch: 9, positions: [1, 0, 2])
    var ids: [String?] = [nil, "nonsense", undisturbed.transport.session?.value.initialEventID]
    var nowNs: UInt64 = 3
    for step in 1...400 as ClosedRange<UInt64> {
      let choice = Int.random(in: 0..<12, using: &random)
      let (lastID, length) = (
        ids.randomElement(using: &random) ?? nil, Int.random(in: 0...150, using: &random)
      )
      nowNs += UInt64.random(in: 0...8, using: &random)
      if choice < 5 { own[Int.random(in: 0...2, using: &random)] += 1 }
      let (cursor, now) = (own, nowNs)
      let act = { (session: inout LongPollSession) -> [LongPollSession.Answer] in
        switch choice {
        case 0...4:
          session.append([UInt8](repeating: 0x31, count: length), cursor: choice == 0 ? nil : cursor)
          return []
        case 5...6: return session.flush(own: cursor, stamp: Self.stamp).map { [$0] } ?? []
        case 7...9:
          return session.poll(id: step, lastEventID: lastID, nowNs: now, own: cursor, stamp: Self.stamp)
        case 10:
          session.cancel(poll: step - 1, nowNs: now)
          return []
        default:
          if case .answer(let answer) = session.tick(nowNs: now, own: cursor) { return [answer] }
          return []
        }
      }
      let expected = undisturbed.transport.withSession { act(&$0) }
      let answers = moved.transport.withSession { act(&$0) }
      #expect(answers == expected, "step \(step)")
      for answer in answers ?? [] { ids.append(answer.lastEventID) }
      if Int.random(in: 0..<3, using: &random) == 0 { moved = try Self.rewritten(moved) }
      let (one, other) = (undisturbed.transport.session?.value, moved.transport.session?.value)
      #expect(one?.waitingPoll == other?.waitingPoll && one?.droppedEntries == other?.droppedEntries)
      #expect(one?.isHalfFull == other?.isHalfFull)
    }
    moved.transport.withSession { $0.owesFarewell = true }
    #expect(try Self.rewritten(moved).transport.session?.value.owesFarewell == true)
  }

  // MARK: What waits

  private static func text(_ backlog: Backlog) -> [UInt8] {
    var bytes: [UInt8] = []
    backlog.forEachStretch(atMost: .max) { bytes.append(contentsOf: $0) }
    return bytes
  }

  @Test(
    "15.6 what a socket didn't take goes out whole and in order, a begun event from where it stood",
    arguments: [false, true], 1...15 as ClosedRange<UInt64>)
  func waiting(isChunked: Bool, seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var undisturbed = ConnectionState(serial: 1, .eventStream(isChunked: isChunked))
    var moved = undisturbed
    for step in 0..<400 {
      switch Int.random(in: 0..<8, using: &random) {
      case 0...3:
        let piece = [UInt8](repeating: UInt8(step % 251), count: .random(in: 1...60, using: &random))
        let isInRing = Bool.random(using: &random)
        let sent = undisturbed.waiting.isEmpty ? Int.random(in: 0..<piece.count, using: &random) : 0
        let item = piece.withUnsafeBytes { SharedBytes(copying: $0, isInRing: isInRing) }
        undisturbed.waiting.append(item, sent: sent)
        moved.waiting.append(item, sent: sent)
      case 4:
        let lent = Int.random(in: 0...min(40, Self.text(undisturbed.waiting).count), using: &random)
        let isDropped = Int.random(in: 0..<6, using: &random) == 0
        let dropped = isDropped ? undisturbed.waiting.dropEvents(lent: lent) : 0
        #expect(!isDropped || moved.waiting.dropEvents(lent: lent) == dropped)
      default:
        let count = Int.random(in: 0...min(90, Self.text(undisturbed.waiting).count), using: &random)
        undisturbed.waiting.advance(by: count)
        moved.waiting.advance(by: count)
      }
      if Bool.random(using: &random) { moved = try Self.rewritten(moved) }
      let (one, other) = (undisturbed.waiting, moved.waiting)
      #expect(Self.text(one) == Self.text(other))
      #expect(one.costBytes == other.costBytes && one.ownCostBytes == other.ownCostBytes)
      #expect(one.costBeforeNewest == other.costBeforeNewest && one.count == other.count)
    }
    guard case .eventStream(isChunked) = moved.transport else {
      Issue.record("another transport")
      return
    }
  }

  @Test("15.6 bytes on their way out are of an event that has begun: it isn't dropped")
  func lent() {
    var backlog = Backlog()
    for piece in [[1, 1, 1], [2, 2], [3]] as [[UInt8]] {
      backlog.append(piece.withUnsafeBytes { SharedBytes(copying: $0, isInRing: true) })
    }
    backlog.advance(by: 1)
    let dropped = backlog.dropEvents(lent: 3)
    #expect(dropped == 1 && Self.text(backlog) == [1, 1, 2, 2])
  }

  // MARK: Who it is, and what it wants

  private static func credential(_ random: inout SeededRandom) -> Credential {
    let names = ["Ann", "Bob", "Zoë", "e\u{301}", "é"]
    return Credential(
      user: names.randomElement(using: &random), session: names.randomElement(using: &random),
      roles: Array(names.prefix(.random(in: 0...3, using: &random))),
      validUntil: Bool.random(using: &random) ? nil : Double.random(in: 0...1e9, using: &random),
      claims: Array(#"{"a":1}"#.utf8))
  }

  private static func subscriptions(_ random: inout SeededRandom) -> [Subscription] {
    (0..<Int.random(in: 0...4, using: &random)).map { _ in
      let type = ["a", "a.b", "a.*", "*", "ü"].randomElement(using: &random) ?? "a"
      let oneOf = (0..<Int.random(in: 0...2, using: &random)).map { _ -> [String: ScalarValue] in
        var fields: [String: ScalarValue] = [:]
        for name in ["x", "y"] where Bool.random(using: &random) { fields[name] = value(&random) }
        return fields
      }
      return Subscription(eventType: EventTypePattern(type), oneOf: oneOf)
    }
  }

  private static func value(_ random: inout SeededRandom) -> ScalarValue {
    [.null, .bool(true), .integer(1), .number(0.5), .string("1")].randomElement(using: &random) ?? .null
  }

  /// Whether an event of the type and fields is one that the state asks for, by an index made of the state alone.
  private static func wants(_ state: ConnectionState, _ event: TestEvent) throws -> Bool {
    var index = SubscriptionIndex(seed: 1)
    if !state.subscriptions.isEmpty { index.commit(try index.whole(state.subscriptions), for: 0) }
    return event.withRecord { record in
      var connections: [ConnectionIndex] = []
      index.match(record, into: &connections)
      return !connections.isEmpty
    }
  }

  private static func isRecipient(_ state: ConnectionState, of user: String) -> Bool {
    var followers = Followers()
    followers.note(user: "Cid", holds: ["Zoë"])
    if let identity = state.identity { followers.add(0, identity) }
    var event = TestEvent(type: "a").prepared
    event.users = [user]
    let encoded = event.encoded()
    return withUnsafeTemporaryAllocation(byteCount: encoded.prefixBytes + event.json.count, alignment: 8) {
      event.encode(encoded, into: $0)
      guard let record = EventRecord(UnsafeRawBufferPointer($0)) else { return false }
      var connections: [ConnectionIndex] = []
      followers.match(record, into: &connections)
      return !connections.isEmpty
    }
  }

  @Test(
    "15.6 subscriptions, users, changes and place in the rings: what is made of the state anew finds the same events",
    arguments: 1...20 as ClosedRange<UInt64>)
  func wishes(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var undisturbed = ConnectionState(serial: seed, .eventStream(isChunked: true))
    undisturbed.origin = ConnectionOrigin(remote: "192.0.2.1", userAgent: "é", sinceUnixMs: -5)
    var moved = undisturbed
    var own = Cursor(epoch: 3)
    var nowNs: UInt64 = 1
    for _ in 0..<60 {
      let before = random
      for isMoved in [false, true] {
        var state = isMoved ? moved : undisturbed
        random = before
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
          state.subscriptions = SubscriptionContent.encode(Self.subscriptions(&random))
        case 1:
          var identity = state.identity ?? ConnectionIdentity()
          _ = identity.adopt([Self.credential(&random)])
          identity.followedUsers = Bool.random(using: &random) ? ["Dan"] : []
          identity.followedRoles = Bool.random(using: &random) ? ["Zoë"] : []
          state.identity = identity
        case 2:
          let place = Cursor(epoch: 3, positions: [1, .random(in: 0...9, using: &random)])
          state.resuming = ConnectionState.Resuming(
            plan: ResumePlan(client: place), isCatchingUp: Bool.random(using: &random))
        case 3: state.resuming = nil
        case 4: state.resuming?.plan.advance(ring: 2, to: .random(in: 0...90, using: &random))
        default: break
        }
        if isMoved { moved = state } else { undisturbed = state }
      }
      nowNs += 7_000_000_000
      own[2] += 3
      #expect(
        undisturbed.changes.admit(nowNs: nowNs, perMinute: 2)
          == moved.changes.admit(nowNs: nowNs, perMinute: 2))
      moved = try Self.rewritten(moved)
      for type in ["a", "a.b", "ü", "z"] {
        let event = TestEvent(type: type, fields: ["x": Self.value(&random), "y": .integer(1)])
        #expect(try Self.wants(undisturbed, event) == Self.wants(moved, event))
      }
      for user in ["Ann", "Bob", "Cid", "Dan", "é"] {
        #expect(Self.isRecipient(undisturbed, of: user) == Self.isRecipient(moved, of: user))
      }
      #expect(undisturbed.identity == moved.identity && undisturbed.origin == moved.origin)
      #expect(undisturbed.resuming == moved.resuming && undisturbed.serial == moved.serial)
      #expect(undisturbed.resuming?.plan.nextReplay(upTo: own) == moved.resuming?.plan.nextReplay(upTo: own))
    }
  }

  // MARK: Bytes of others

  /// One state of each kind with everything in it.
  private static func examples() -> [ConnectionState] {
    var random = SeededRandom(seed: 11)
    var states = [
      ConnectionState(serial: 3, .eventStream(isChunked: true)),
      webSocket(hasCursors: true, isDeflated: true),
      webSocket(), session(),
    ]
    for index in states.indices {
      states[index].identity = ConnectionIdentity([credential(&random), credential(&random)])
      states[index].origin = ConnectionOrigin(remote: "::1", userAgent: "x", sinceUnixMs: 1)
      states[index].subscriptions = SubscriptionContent.encode([.to("a", ["x": .integer(1)]), .to("b.*")])
      _ = states[index].changes.admit(nowNs: 5, perMinute: 3)
      states[index].resuming = .init(
        plan: ResumePlan(client: Cursor(epoch: 1, positions: [2])), isCatchingUp: true)
      for isInRing in [true, false] {
        let item = [1, 2, 3].withUnsafeBytes { SharedBytes(copying: $0, isInRing: isInRing) }
        states[index].waiting.append(item)
      }
      states[index].transport.withWebSocket { socket in
        var actions: [WebSocketAction] = []
        let begun = ClientFrame(opcode: 1, payload: Array("aé".utf8), fin: false).bytes
        socket.take(ByteBuffer(bytes: begun + [0x80, 0xFE, 0x01]))
        _ = socket.read(into: &actions)
        socket.take(ByteBuffer(bytes: [7]))
        socket.held = HeldMessages(checking: [1])
        socket.toldCursor = Cursor(epoch: 1)
      }
      states[index].transport.withSession { session in
        session.append([1, 2], cursor: nil)
        session.append([3], cursor: Cursor(epoch: 9, positions: [4]))
      }
    }
    return states
  }

  /// Whatever was let in serves: nothing that follows may stop the worker.
  private static func use(_ state: ConnectionState, _ random: inout SeededRandom) {
    var state = state
    let own = Cursor(epoch: 9, positions: [4, 4])
    _ = state.changes.admit(nowNs: 9, perMinute: 2)
    _ = SubscriptionContent.decode(state.subscriptions)
    _ = state.identity.map { ($0.validUntil, $0.lastEnd, $0.claims) }
    _ = state.resuming?.plan.nextReplay(upTo: own)
    _ = text(state.waiting)
    state.waiting.advance(by: 2)
    state.waiting.dropEvents(lent: 1)
    state.transport.withSession { session in
      session.append([1], cursor: own)
      _ = session.poll(id: 3, lastEventID: session.initialEventID, nowNs: 5, own: own, stamp: stamp)
      _ = session.tick(nowNs: .max, own: own)
      _ = session.end(own: own, stamp: stamp)
    }
    let bytes = traffic(&random, isDeflated: true)
    state.transport.withWebSocket { $0.take(ByteBuffer(bytes: bytes)) }
    _ = read(&state)
    _ = state.encoded
  }

  @Test("15.6 bytes that are flipped, cut off or added never stop a worker", arguments: 0..<4)
  func flipped(example: Int) throws {
    let state = Self.examples()[example]
    let bytes = try Self.rewritten(state).encoded
    var random = SeededRandom(seed: UInt64(example) + 1)
    Self.use(state, &random)
    var refused = 0
    for round in 0..<1500 {
      var broken = bytes
      for _ in 0...(round % 3) {
        let place = Int.random(in: broken.indices, using: &random)
        switch round % 5 {
        case 0: broken[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
        case 1: broken[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
        case 2: broken.removeSubrange(place...)
        case 3: broken.insert(.random(in: 0...255, using: &random), at: place)
        default: broken[place] = .random(in: 0...255, using: &random)
        }
        if broken.isEmpty { break }
      }
      do throws(ConnectionStateError) {
        Self.use(try Self.decoded(broken), &random)
      } catch {
        refused += 1
        #expect(!error.description.isEmpty)
      }
    }
    #expect(refused > 300, "most are seen")
  }

  @Test("15.6 fields that this release doesn't know are passed over, at each level")
  func unknown() throws {
    for state in Self.examples() {
      var fields = FieldWriter()
      fields.append(tag: 999) { $0.append("new") }
      #expect(try Self.decoded(fields.bytes + state.encoded).encoded == state.encoded)
      // One more behind what a field's layout has: its length is in its head.
      var longer = state.encoded
      let serialBytes = 8
      longer[2] += UInt8(fields.bytes.count)
      longer.insert(contentsOf: fields.bytes, at: 6 + serialBytes)
      #expect(try Self.decoded(longer).encoded == state.encoded)
    }
  }

  @Test("15.6 what is missing, there twice or out of bounds is refused by name")
  func refused() {
    func error(_ build: (inout FieldWriter) -> Void) -> ConnectionStateError? {
      var fields = FieldWriter()
      build(&fields)
      do throws(ConnectionStateError) {
        _ = try Self.decoded(fields.bytes)
        return nil
      } catch {
        return error
      }
    }
    func stream(_ fields: inout FieldWriter) {
      fields.append(tag: 1) { $0.append(UInt64(4)) }
      fields.append(tag: 2) { $0.append(UInt8(1)) }
    }
    #expect(error { stream(&$0) } == nil)
    #expect(error { _ in } == .missing("serial"))
    #expect(error { $0.append(UInt8(1)) } == .notFields)
    #expect(error { $0.append(tag: 1) { $0.append(UInt64(4)) } } == .missing("transport"))
    #expect(error { $0.append(tag: 1) { $0.append(UInt32(4)) } } == .malformed("serial"))
    #expect(
      error {
        stream(&$0)
        stream(&$0)
      } == .notFields)
    let session = Self.session()
    #expect(
      error {
        stream(&$0)
        $0.append(tag: 4) { session.transport.session?.value.encode(into: &$0) }
      } == .malformed("transport"))
    #expect(
      error {
        stream(&$0)
        $0.append(tag: 7) { $0.append([1, 0, 9, 0, 0, 0, 0] as [UInt8]) }
      } == .malformed("subscriptions"))
    // As it is encoded, but for the order of its fields.
    let fields = SubscriptionContent.encode([.to("a", ["x": .null, "y": .null])])
    let swapped = fields.map {
      $0 == UInt8(ascii: "x") ? UInt8(ascii: "y") : $0 == UInt8(ascii: "y") ? UInt8(ascii: "x") : $0
    }
    #expect(
      error {
        stream(&$0)
        $0.append(tag: 7) { $0.append(swapped) }
      } == .malformed("subscriptions"))
    #expect(
      error {
        stream(&$0)
        $0.append(tag: 9) {
          $0.append(UInt8(0))
          $0.append(UInt64(1))
          $0.append(UInt32(Cursor.maximumRings + 1))
        }
      } == .malformed("resuming"))
  }
}
