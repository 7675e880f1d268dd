// The API definitions of the gateway: those that it starts with, and the changes of the management port. A change is answered
// when it is in STATE_DIR, if there is one, and every connection worker routes by it.
//
//   PROXY_CONFIG_FILE, STATE_DIR ─► definitions ─► state log, when the log is new
//   management port ─► waiting ─► draft ─► STATE_DIR ─► definitions, state log ─► every connection worker ─► confirmed
//   state log, STATE_DIR ─► definitions, when this worker follows one that has ended
//
// While the file is written further changes wait: they are the next group, and share one write. A change that can't be
// written has never been. One that is written stands, also if the state log has no room for it now: it is told later.

import APIs
import Kit
import Logging
import Settings

final class APIStore {
  enum Outcome: Equatable {
    case done
    case refused(APIError)
    case busy
    /// STATE_DIR can't take it: nothing has changed.
    case unwritten(String)
    /// It stands, but not every worker has confirmed it.
    case unconfirmed
    case unknown
  }

  typealias Done = (Outcome) -> Void

  /// Changes that wait for a write to end; more: busy.
  static let maximumWaiting = 1_000
  /// And the bytes of their bodies.
  static let maximumWaitingBytes = 16 * 1_048_576
  /// Changes of one group, which is judged in one turn of the loop.
  static let maximumGroup = 100
  /// And the bytes of their bodies, if there are several.
  static let maximumGroupBytes = APIDefinition.maximumBytes

  let sessions: SessionStore
  private let log: Logger
  private let node: String
  /// nil: definitions end with the gateway.
  private let keeper: StateKeeper?
  /// What is true.
  private var current = OrderedAPIs()
  var table: APITable { current.table }
  /// Steps that are true and that the state log couldn't take yet, in their order.
  private var untold: [OrderedAPIs.Step] = []
  private var waiting: [(change: OrderedAPIs.Change, done: Done)] = []
  private var waitingBytes = 0
  /// Whoever waits for the write that is going on.
  private var group: [Done] = []
  private var isWriting = false
  /// What looks for covered endpoints may still take in this turn.
  private var effortLeft = CoveredEndpoints.maximumEffort.change
  private var isEffortSpent = false
  /// Orders only wait meanwhile.
  private var isProceeding = false
  /// A group was judged in this turn of the loop: the next one waits for another.
  private var isResting = false
  private let soon: (@escaping () -> Void) -> Void
  private var hasStopped = false

  /// - Parameter soon: calls its closure in another turn of the loop.
  /// - Throws: what is wrong with PROXY_CONFIG_FILE or STATE_DIR, which count when the state log is new.
  init(
    sessions: SessionStore, settings: Settings, node: String, keeper: StateKeeper? = nil, log: Logger,
    soon: @escaping (@escaping () -> Void) -> Void
  ) throws {
    self.soon = soon
    self.sessions = sessions
    self.node = node
    self.keeper = keeper
    self.log = log
    if sessions.state.isNew {
      sessions.forgetAPIs()
      try start(with: settings.proxyConfig)
    } else {
      resume()
    }
  }

  private var stamp: APIChange { APIChange(timestamp: Stamp.now().rfc3339, nodeName: node) }

  /// Carries out a change, perhaps together with others.
  func order(_ change: OrderedAPIs.Change, _ done: @escaping Done) {
    guard !hasStopped else { return done(.unknown) }
    guard waiting.count < Self.maximumWaiting, waitingBytes + change.bodyBytes <= Self.maximumWaitingBytes
    else { return done(.busy) }
    waiting.append((change, done))
    waitingBytes += change.bodyBytes
    proceed()
  }

  /// Secured endpoints that open ones cover since a change that stands; logged too. Many changes may be answered in one turn: the
  /// looks of all of them together take what one may, and what is left is told so.
  ///
  /// - Parameter afterTurn: calls its closure when this turn of the loop is over.
  func warnings(
    about change: OrderedAPIs.Change, afterTurn: (@escaping () -> Void) -> Void
  ) -> [String] {
    guard effortLeft > 0 else { return [Self.notCompared] }
    guard let id = change.id else { return [] }
    effortLeft -= change.bodyBytes / Self.bytesPerStep
    let look = CoveredEndpoints(table.all, of: id, limit: effortLeft)
    effortLeft -= look.effort
    if !isEffortSpent {
      isEffortSpent = true
      afterTurn { [weak self] in self?.renewEffort() }
    }
    return warn(of: table.definition(id).map { [$0] } ?? [], look)
  }

  private func renewEffort() {
    effortLeft = CoveredEndpoints.maximumEffort.change
    isEffortSpent = false
  }

  /// What finding out whose a change is is worth, in steps.
  private static let bytesPerStep = 4
  static let notCompared =
    "endpoints were not compared: too many changes at once; PUT the definition again to have it compared"

  /// Says what of these definitions will not do what their authors may think. Returns the same.
  @discardableResult
  private func warn(of definitions: some Sequence<APIDefinition>, _ covered: CoveredEndpoints) -> [String] {
    for warning in covered.warnings {
      log.warning("an open endpoint covers a secured one", metadata: ["reason": "\(warning)"])
    }
    let others = definitions.flatMap(\.warnings)
    for warning in others {
      log.warning("something of an API definition is of no effect", metadata: ["reason": "\(warning)"])
    }
    return covered.warnings + others
  }

  func tick() { tell() }

  /// The worker ends: whoever waits is answered.
  func stop() {
    hasStopped = true
    let all = group + waiting.map(\.done)
    (group, waiting, waitingBytes) = ([], [], 0)
    for done in all { done(.unknown) }
  }

  // MARK: Groups

  /// Judges some of what waits, as one group. Nobody is answered before that is done: whoever is answered may order the next
  /// change at once.
  private func proceed() {
    guard !isWriting, !isProceeding, !isResting, !waiting.isEmpty else { return }
    isProceeding = true
    let orders = takeOrders()
    var draft = current
    var accepted: [(step: OrderedAPIs.Step, done: Done)] = []
    // Refused because of changes that may turn out not to have been.
    var refused: [(error: APIError, done: Done)] = []
    var answers: [() -> Void] = []
    var promised = 0
    for order in orders {
      do throws(APIError) {
        let step = try draft.apply(order.change, stamp) { definition, order in
          let room = sessions.state.room(
            forAPI: Name(definition.id), order: order, json: definition.json, promised: promised)
          promised += room ?? 0
          return room != nil
        }
        accepted.append((step, order.done))
      } catch {
        if accepted.isEmpty {
          answers.append { order.done(.refused(error)) }
        } else {
          refused.append((error, order.done))
        }
      }
    }
    if let keeper, !accepted.isEmpty {
      group = accepted.map(\.done) + refused.map(\.done)
      isWriting = true
      keeper.write(draft.durable) { [weak self] failure in
        self?.written(draft, accepted, refused, failure)
      }
    } else if !accepted.isEmpty {
      answers += carryOut(draft, accepted, refused)
    }
    answer(answers)
    rest()
  }

  /// Without a file a change is kept or not by itself.
  private func takeOrders() -> [(change: OrderedAPIs.Change, done: Done)] {
    var bytes = 0
    let fitting = waiting.prefix(keeper == nil ? 1 : Self.maximumGroup).prefix { order in
      bytes += order.change.bodyBytes
      return bytes <= Self.maximumGroupBytes
    }
    let orders = Array(waiting.prefix(max(fitting.count, 1)))
    waiting.removeFirst(orders.count)
    waitingBytes -= orders.reduce(0) { $0 + $1.change.bodyBytes }
    return orders
  }

  private func written(
    _ draft: OrderedAPIs, _ accepted: [(step: OrderedAPIs.Step, done: Done)],
    _ refused: [(error: APIError, done: Done)], _ failure: StateFile.Failure?
  ) {
    guard !hasStopped else { return }
    isWriting = false
    let all = group
    group = []
    if let failure {
      log.error("definitions can't be kept", metadata: ["reason": "\(failure)"])
      return finish(all.map { done in { done(.unwritten(failure.description)) } })
    }
    finish(carryOut(draft, accepted, refused))
  }

  /// Answers, and goes on with what was ordered meanwhile.
  private func finish(_ answers: [() -> Void]) {
    answer(answers)
    proceed()
  }

  private func answer(_ answers: [() -> Void]) {
    isProceeding = true
    for answer in answers { answer() }
    isProceeding = false
  }

  /// What still waits is judged in another turn: however much it is, others have theirs in between.
  private func rest() {
    guard !isWriting, !waiting.isEmpty else { return }
    isResting = true
    soon { [weak self] in
      self?.isResting = false
      self?.proceed()
    }
  }

  /// The draft is true from now on. Returns the answers that can be given at once.
  private func carryOut(
    _ draft: OrderedAPIs, _ accepted: [(step: OrderedAPIs.Step, done: Done)],
    _ refused: [(error: APIError, done: Done)]
  ) -> [() -> Void] {
    var answers: [() -> Void] = []
    var stands = true
    // Confirmed at once if there is nobody who has to: then too only after `current` is what it will be.
    var isAtOnce = true
    defer { isAtOnce = false }
    for (step, done) in accepted {
      guard untold.isEmpty, case .kept(let end) = tell(step) else {
        guard keeper != nil else {
          stands = false
          answers.append { done(.busy) }
          continue
        }
        untold.append(step)
        answers.append { done(.unconfirmed) }
        continue
      }
      sessions.carryOut(.kept(end: end)) { outcome in
        let result: Outcome = outcome == .done ? .done : .unconfirmed
        if isAtOnce { answers.append { done(result) } } else { done(result) }
      }
    }
    if stands { current = draft }
    for (error, done) in refused { answers.append { done(.refused(error)) } }
    return answers
  }

  private func tell(_ step: OrderedAPIs.Step) -> StateLog.Outcome {
    switch step {
    case .define(let definition, let order):
      sessions.setAPI(definition.id, order: order, json: definition.json)
    case .remove(let id): sessions.removeAPI(id)
    }
  }

  /// Tells the state log what it doesn't know; what it can't take now is tried again in a second.
  private func tell() {
    while let step = untold.first, case .kept = tell(step) { untold.removeFirst() }
  }

  // MARK: Start

  private func start(with configuration: String) throws {
    let configured = try Self.table(configuration, stamp)
    let durable = try keeper?.begin() ?? DurableAPIs()
    current = try OrderedAPIs(configured, changedBy: durable)
    if current.durable != durable, let failure = keeper?.writeNow(current.durable) {
      log.warning("STATE_DIR is out of date until the next change", metadata: ["reason": "\(failure)"])
    }
    for definition in table.all {
      let order = current.order(of: definition)
      guard case .kept = sessions.setAPI(definition.id, order: order, json: definition.json) else {
        let source = current.isDurable(definition) ? "STATE_DIR" : "PROXY_CONFIG_FILE"
        throw UnusableConfiguration(
          description: "\(source): API \(definition.id) doesn't fit into STATE_RING_BYTES")
      }
    }
    warn(of: table.all, CoveredEndpoints(table.all))
  }

  /// The definitions of PROXY_CONFIG_FILE: of a path, or the JSON itself.
  static func table(_ configuration: String, _ stamp: APIChange) throws -> APITable {
    guard !configuration.isEmpty else { return APITable() }
    let text: String
    do throws(ValueProblem) {
      text = try configuration.first == "[" ? configuration : TextFile.read(configuration)
    } catch {
      throw UnusableConfiguration(description: "PROXY_CONFIG_FILE: \(error)")
    }
    do throws(APIFileError) {
      return try Array(text.utf8).withUnsafeBytes { bytes in
        Result { () throws(APIFileError) in try APITable(list: bytes, stamp) }
      }.get()
    } catch {
      let lines = error.lines.map { "PROXY_CONFIG_FILE: \($0)" }
      throw UnusableConfiguration(description: lines.joined(separator: "\n"))
    }
  }

  private func resume() {
    for (_, api) in sessions.state.apis.sorted(by: { $0.value.order < $1.value.order }) {
      guard let definition = api.json.withUnsafeBytes({ try? APIDefinition(stored: $0) }) else { continue }
      current.take(definition, order: api.order)
    }
    guard let keeper else { return }
    guard let durable = keeper.goOn() else {
      let reason = keeper.refusal?.description ?? ""
      log.error(
        "definitions can't be changed until the gateway is restarted", metadata: ["reason": "\(reason)"])
      return
    }
    untold += current.catchUp(with: durable)
    tell()
  }
}

/// Why the gateway can't start.
struct UnusableConfiguration: ConfigurationFault, CustomStringConvertible {
  let description: String
}
