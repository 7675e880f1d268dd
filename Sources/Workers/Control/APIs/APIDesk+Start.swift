// Where the definitions come from when a control worker starts.
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
import Kit
import Settings

/// Why the gateway can't start.
struct UnusableConfiguration: ConfigurationFault, CustomStringConvertible {
  let description: String
}

extension APIDesk {
  func start(with configuration: String) throws {
    let configured = try Self.table(configuration, stamp)
    let durable = try keeper?.begin() ?? DurableAPIs()
    try takeUp(configured, durable)
    for definition in table.all {
      let order = current.orders[Array(definition.id.utf8)] ?? DurableAPIs.firstOrder
      guard case .kept = desk.setAPI(definition.id, order: order, json: definition.json) else {
        throw UnusableConfiguration(
          description:
            "\(source(of: definition)): API \(definition.id) doesn't fit into STATE_RING_BYTES")
      }
    }
    warn(of: table.all, CoveredEndpoints(table.all))
  }

  private func source(of definition: APIDefinition) -> String {
    let isDurable = current.durable.definitions[Array(definition.id.utf8)] != nil
    return isDurable ? "STATE_DIR" : "PROXY_CONFIG_FILE"
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

  private func takeUp(_ configured: APITable, _ durable: DurableAPIs) throws {
    var draft = APIDraft()
    var order: UInt64 = 1
    for definition in configured.all {
      let id = Array(definition.id.utf8)
      let own = durable.definitions[id]
      if durable.removed.contains(id) || own.map({ $0.order >= DurableAPIs.firstOrder }) ?? false {
        // PROXY_CONFIG_FILE's doesn't count, and won't if the other one is removed.
        draft.durable.removed.insert(id)
        continue
      }
      try draft.put(own?.definition ?? definition, order: order, isDurable: own != nil)
      order += 1
    }
    let rest = durable.ordered.filter { draft.orders[Array($0.definition.id.utf8)] == nil }
    for entry in rest where entry.order >= DurableAPIs.firstOrder {
      try draft.put(entry.definition, order: entry.order, isDurable: true)
    }
    // PROXY_CONFIG_FILE had them once, and has them no longer.
    for entry in rest where entry.order < DurableAPIs.firstOrder {
      try draft.put(entry.definition, order: draft.nextOrder, isDurable: true)
    }
    current = draft
    if draft.durable != durable, let failure = keeper?.writeNow(draft.durable) {
      log.warning("STATE_DIR is out of date until the next change", metadata: ["reason": "\(failure)"])
    }
  }

  // MARK: In the middle of the gateway's life

  func resume() {
    for (id, api) in desk.state.apis.sorted(by: { $0.value.order < $1.value.order }) {
      guard let definition = api.json.withUnsafeBytes({ try? APIDefinition(stored: $0) }),
        (try? current.table.put(definition)) != nil
      else { continue }
      current.place(Array(id.text.utf8), api.order)
    }
    guard let keeper else { return }
    guard let durable = keeper.goOn() else {
      let reason = keeper.refusal?.description ?? ""
      log.error(
        "definitions can't be changed until the gateway is restarted", metadata: ["reason": "\(reason)"])
      return
    }
    catchUp(with: durable)
    tell()
  }

  /// Does what the predecessor had written, and perhaps not told any more.
  private func catchUp(with durable: DurableAPIs) {
    current.durable = durable
    for (id, order) in current.orders where durable.definitions[id] == nil {
      guard order >= DurableAPIs.firstOrder || durable.removed.contains(id) else { continue }
      let name = String(decoding: id, as: UTF8.self)
      current.table.drop(id: name)
      current.orders[id] = nil
      untold.append(.remove(id: name))
    }
    for entry in durable.ordered {
      let definition = entry.definition
      let id = Array(definition.id.utf8)
      let known = current.orders[id]
      // One that takes the place of PROXY_CONFIG_FILE's has that one's order, whatever it was when it was written.
      let order = known.map { entry.order < DurableAPIs.firstOrder ? $0 : entry.order } ?? entry.order
      guard known != order || current.table.stored(definition.id) != definition else { continue }
      // One that was made anew comes behind the others.
      if known != order { current.table.drop(id: definition.id) }
      guard (try? current.table.put(definition)) != nil else { continue }
      current.place(id, order)
      untold.append(.define(definition, order: order))
    }
  }
}

extension APIDraft {
  fileprivate mutating func put(_ definition: APIDefinition, order: UInt64, isDurable: Bool) throws {
    do throws(APIError) {
      try table.put(definition)
    } catch {
      throw UnusableConfiguration(
        description: "\(isDurable ? "STATE_DIR" : "PROXY_CONFIG_FILE"): \(definition.id): \(error.message)")
    }
    if isDurable { durable.define(definition, order: order, old: nil) }
    place(Array(definition.id.utf8), order)
  }
}
