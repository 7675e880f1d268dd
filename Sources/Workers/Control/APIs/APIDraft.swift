// The definitions as they will be once the changes of a group stand: each change is judged by those before it. Nothing outside
// knows of a draft; it becomes true as a whole when it is in STATE_DIR, or at once without one.

import APIs

struct APIDraft {
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

  var table = APITable()
  var orders: [[UInt8]: UInt64] = [:]
  var nextOrder = DurableAPIs.firstOrder
  var durable = DurableAPIs()

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
    let id = Array(definition.id.utf8)
    durable.define(definition, order: order, old: orders[id])
    place(id, order)
    return .define(definition, order: order)
  }

  mutating func place(_ id: [UInt8], _ order: UInt64) {
    orders[id] = order
    if order >= nextOrder { nextOrder = order + 1 }
  }
}
