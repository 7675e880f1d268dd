// All definitions with the order that each has, and what of them is in STATE_DIR. What is true is one such value; a group of
// changes makes a draft of it, in which each change is judged by those before it. Nothing outside knows of a draft; it
// becomes true as a whole when it is in STATE_DIR, or at once without one.
//
// Where the definitions come from when a control worker starts:
//
//   the state log is new        the gateway's first control worker, or the log was damaged and made anew: PROXY_CONFIG_FILE, and
//                               laid over it what STATE_DIR says was changed at run time. What is wrong with either stops the start.
//   it isn't                    the log, and what its writer had put into STATE_DIR and not told any more. Requests go on being
//                               answered whatever the file says now; if it says nothing, changes are refused.
//
// How the two combine: what was changed at run time (PUT) wins over the definition of the same id in PROXY_CONFIG_FILE and has
// its place; what was made at run time (POST) wins too, and comes behind all of PROXY_CONFIG_FILE's; what was removed (DELETE)
// stays removed for as long as PROXY_CONFIG_FILE has it at every start: taken out of the file and added again
// later, it counts again. Everything else is as PROXY_CONFIG_FILE says now, what was added to it since too.

import APIs

struct OrderedAPIs {
  enum Change {
    case create([UInt8])
    case replace(id: String, [UInt8])
    case remove(id: String)

    /// Of the definition; nil: a body that has none is refused.
    var id: String? {
      switch self {
      case .create(let body):
        (try? body.withUnsafeBytes { try APIDefinition(stored: $0) })?.id
      case .replace(let id, _), .remove(let id): id
      }
    }

    var bodyBytes: Int {
      switch self {
      case .create(let body), .replace(_, let body): body.count
      case .remove: 0
      }
    }
  }

  /// What becomes of it.
  enum Step {
    case define(APIDefinition, order: UInt64)
    case remove(id: String)
  }

  private(set) var table = APITable()
  private(set) var durable = DurableAPIs()
  private var orders: [[UInt8]: UInt64] = [:]
  private var nextOrder = DurableAPIs.firstOrder

  func order(of definition: APIDefinition) -> UInt64 {
    orders[Array(definition.id.utf8)] ?? DurableAPIs.firstOrder
  }

  func isDurable(_ definition: APIDefinition) -> Bool {
    durable.definitions[Array(definition.id.utf8)] != nil
  }

  // MARK: Changes

  /// - Parameter room: whether there is room for a definition of that order.
  mutating func apply(
    _ change: Change, _ stamp: APIChange, room: (APIDefinition, _ order: UInt64) -> Bool
  ) throws(APIError) -> Step {
    // Nothing of a change that is refused stays.
    var next = self
    let step = try next.carryOut(change, stamp)
    if case .define(let definition, let order) = step {
      guard room(definition, order) else {
        throw .full("the definition doesn't fit into the state ring (STATE_RING_BYTES)")
      }
    }
    self = next
    return step
  }

  private mutating func carryOut(_ change: Change, _ stamp: APIChange) throws(APIError) -> Step {
    switch change {
    case .create(let body):
      let definition = try Self.read(body) { (bytes) throws(APIError) in try table.create(bytes, stamp) }
      return note(definition, order: nextOrder)
    case .replace(let id, let body):
      let definition = try Self.read(body) { (bytes) throws(APIError) in
        try table.replace(id: id, bytes, stamp)
      }
      return note(definition, order: orders[Array(id.utf8)] ?? nextOrder)
    case .remove(let id):
      try table.remove(id: id)
      durable.remove(Array(id.utf8), old: orders.removeValue(forKey: Array(id.utf8)))
      return .remove(id: id)
    }
  }

  private static func read<Value>(
    _ body: [UInt8], _ read: (UnsafeRawBufferPointer) throws(APIError) -> Value
  ) throws(APIError) -> Value {
    try body.withUnsafeBytes { bytes in Result { () throws(APIError) in try read(bytes) } }.get()
  }

  private mutating func note(_ definition: APIDefinition, order: UInt64) -> Step {
    durable.define(definition, order: order, old: orders[Array(definition.id.utf8)])
    place(definition, order)
    return .define(definition, order: order)
  }

  private mutating func place(_ definition: APIDefinition, _ order: UInt64) {
    orders[Array(definition.id.utf8)] = order
    if order >= nextOrder { nextOrder = order + 1 }
  }

  // MARK: Start

  init() {}

  /// - Parameters:
  ///   - configured: the definitions of PROXY_CONFIG_FILE.
  ///   - durable: what STATE_DIR says.
  init(_ configured: APITable, changedBy durable: DurableAPIs) throws(UnusableConfiguration) {
    var order: UInt64 = 1
    for definition in configured.all {
      let id = Array(definition.id.utf8)
      let own = durable.definitions[id]
      if durable.removed.contains(id) || own.map({ $0.order >= DurableAPIs.firstOrder }) ?? false {
        // PROXY_CONFIG_FILE's doesn't count, and won't if the other one is removed.
        self.durable.exclude(id)
        continue
      }
      try put(own?.definition ?? definition, order: order, isDurable: own != nil)
      order += 1
    }
    let rest = durable.ordered.filter { orders[Array($0.definition.id.utf8)] == nil }
    for entry in rest where entry.order >= DurableAPIs.firstOrder {
      try put(entry.definition, order: entry.order, isDurable: true)
    }
    // PROXY_CONFIG_FILE had them once, and has them no longer.
    for entry in rest where entry.order < DurableAPIs.firstOrder {
      try put(entry.definition, order: nextOrder, isDurable: true)
    }
  }

  private mutating func put(
    _ definition: APIDefinition, order: UInt64, isDurable: Bool
  ) throws(UnusableConfiguration) {
    do throws(APIError) {
      try table.put(definition)
    } catch {
      throw UnusableConfiguration(
        description: "\(isDurable ? "STATE_DIR" : "PROXY_CONFIG_FILE"): \(definition.id): \(error.message)")
    }
    if isDurable { durable.define(definition, order: order, old: nil) }
    place(definition, order)
  }

  /// One of the state log, as it was decided on once. False: there is no room for it.
  @discardableResult
  mutating func take(_ definition: APIDefinition, order: UInt64) -> Bool {
    guard (try? table.put(definition)) != nil else { return false }
    place(definition, order)
    return true
  }

  /// Does what the predecessor had written, and perhaps not told any more. Returns what that changes.
  mutating func catchUp(with durable: DurableAPIs) -> [Step] {
    var steps: [Step] = []
    self.durable = durable
    for (id, order) in orders where durable.definitions[id] == nil {
      guard order >= DurableAPIs.firstOrder || durable.removed.contains(id) else { continue }
      let name = String(decoding: id, as: UTF8.self)
      table.drop(id: name)
      orders[id] = nil
      steps.append(.remove(id: name))
    }
    for entry in durable.ordered {
      let definition = entry.definition
      let known = orders[Array(definition.id.utf8)]
      // One that takes the place of PROXY_CONFIG_FILE's has that one's order, whatever it was when it was written.
      let order = known.map { entry.order < DurableAPIs.firstOrder ? $0 : entry.order } ?? entry.order
      guard known != order || table.stored(definition.id) != definition else { continue }
      // One that was made anew comes behind the others.
      if known != order { table.drop(id: definition.id) }
      if take(definition, order: order) { steps.append(.define(definition, order: order)) }
    }
    return steps
  }
}
