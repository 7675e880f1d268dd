// The supervisor as a pure state machine: OTP's `supervisor` semantics, nested, driven by events. It performs no
// I/O, reads no clock and spawns nothing; it says what is to be done. Transitions: starting in
// SupervisionTree+Start, stopping in +Stop, failures, restarts and escalation in +Failure.
//
// One difference to OTP, on purpose: an OTP supervisor waits inside `start_link` and finds exits of other children
// in its mailbox afterwards. This one never waits, and acts on such an exit at once.

struct SupervisionTree: Sendable {
  var nodes: [Node] = []
  var children: [Child] = []
  var actions: [TreeAction] = []
  var outcome: Outcome?
  private var announcedReady = false
  private var timersSet: UInt64 = 0

  /// The root is node 0.
  init(_ root: NodeSpec) throws(SpecError) {
    try append(root, name: "root", owner: nil)
  }

  /// Takes one event at `now` (CLOCK_MONOTONIC) and returns what has to be done, in order. After `.finished` there
  /// is never anything to do.
  mutating func handle(_ event: TreeEvent, at now: Nanoseconds) -> [TreeAction] {
    guard outcome == nil else { return [] }
    switch event {
    case .start: start(at: now)
    case .started(let id, let instance): workerStarted(id, instance: instance, at: now)
    case .exited(let id, let instance, let exit): workerExited(id, instance: instance, exit, at: now)
    case .timer(let id, let token): timerFired(id, token, at: now)
    case .condemn(let id, let why): condemn(id, why)
    case .stop: stop(at: now)
    case .quit: quit(at: now)
    }
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }

  /// Workers of the tree in start order, each with its id.
  var workers: [(id: ChildID, name: String)] {
    children.filter { $0.ownNode == nil }.map { ($0.id, $0.spec.id) }
  }

  subscript(id: ChildID) -> Child {
    get { children[id.index] }
    set { children[id.index] = newValue }
  }

  // MARK: Building blocks of the transitions

  mutating func perform(_ action: TreeAction) {
    actions.append(action)
  }

  mutating func note(_ note: TreeNote) {
    actions.append(.note(note))
  }

  mutating func setTimer(_ id: ChildID, after span: Nanoseconds, at now: Nanoseconds) {
    timersSet += 1
    let token = TimerToken(value: timersSet)
    self[id].timer = token
    let (deadline, overflow) = now.addingReportingOverflow(span)
    perform(.setTimer(id, token, deadline: overflow ? .max : deadline))
  }

  mutating func cancelTimer(_ id: ChildID) {
    guard self[id].timer != nil else { return }
    self[id].timer = nil
    perform(.cancelTimer(id))
  }

  mutating func announceReady() {
    guard !announcedReady else { return }
    announcedReady = true
    perform(.ready)
  }

  mutating func finish(_ outcome: Outcome) {
    self.outcome = outcome
    perform(.finished(outcome))
  }

  private mutating func append(_ spec: NodeSpec, name: String, owner: ChildID?) throws(SpecError) {
    guard spec.intensity >= 0 else { throw .negativeIntensity(node: name, spec.intensity) }
    if let intensity = spec.childIntensity, intensity < 0 {
      throw .negativeChildIntensity(node: name, intensity)
    }
    guard spec.period > 0 else { throw .zeroPeriod(node: name) }
    let node = nodes.count
    nodes.append(
      Node(
        strategy: spec.strategy, stopsTogether: spec.stopsTogether, owner: owner,
        window: RestartWindow(intensity: spec.intensity, period: spec.period)))
    var names: Set<String> = []
    for (position, child) in spec.children.enumerated() {
      guard names.insert(child.id).inserted else { throw .duplicateID(child.id) }
      let id = ChildID(index: children.count)
      nodes[node].children.append(id)
      let window = spec.childIntensity.map { RestartWindow(intensity: $0, period: spec.period) }
      guard case .supervisor(let inner) = child.kind else {
        children.append(
          Child(id: id, spec: child, node: node, position: position, ownNode: nil, window: window))
        continue
      }
      children.append(
        Child(id: id, spec: child, node: node, position: position, ownNode: nodes.count, window: window))
      try append(inner, name: child.id, owner: id)
    }
  }
}
