// The API definitions of the gateway: those that it starts with, and the changes of the management port. A change is answered
// when every connection worker routes by it.
//
//   PROXY_CONFIG_FILE ─► table ─► state log, when the log is new
//   management port ───► table ─► state log ─► every connection worker ─► confirmed
//   state log ─────────► table, when this worker follows one that has ended

import APIs
import Kit
import Settings

final class APIDesk {
  /// How a change ended.
  enum Outcome: Equatable {
    case done
    case refused(APIError)
    /// Nothing has changed.
    case busy
    /// It stands, but not every worker has confirmed it.
    case unconfirmed
  }

  private let desk: SessionDesk
  private let node: String
  private(set) var table = APITable()
  private var orders: [[UInt8]: UInt64] = [:]
  private var nextOrder: UInt64 = 1

  /// - Throws: what is wrong with PROXY_CONFIG_FILE, which counts when the state log is new.
  init(desk: SessionDesk, settings: Settings, node: String) throws {
    self.desk = desk
    self.node = node
    if desk.state.isNew {
      desk.forgetAPIs()
      try start(with: settings.proxyConfig)
    } else {
      resume()
    }
  }

  private var change: APIChange { APIChange(timestamp: Stamp.now().rfc3339, nodeName: node) }

  // MARK: At the start

  /// Why the gateway can't start.
  struct UnusableConfiguration: Error, CustomStringConvertible {
    let description: String
  }

  private func start(with configuration: String) throws {
    guard !configuration.isEmpty else { return }
    let text = try configuration.first == "[" ? configuration : TextFile.read(configuration)
    do throws(APIFileError) {
      table = try Array(text.utf8).withUnsafeBytes { bytes in
        Result { () throws(APIFileError) in try APITable(list: bytes, change) }
      }.get()
    } catch {
      throw UnusableConfiguration(description: "PROXY_CONFIG_FILE: \(error)")
    }
    for definition in table.all {
      guard case .kept = desk.setAPI(definition.id, order: nextOrder, json: definition.json) else {
        throw UnusableConfiguration(
          description: "PROXY_CONFIG_FILE: API \(definition.id) doesn't fit into STATE_RING_BYTES")
      }
      note(definition.id, nextOrder)
    }
  }

  private func resume() {
    for (id, api) in desk.state.apis.sorted(by: { $0.value.order < $1.value.order }) {
      guard let definition = api.json.withUnsafeBytes({ try? APIDefinition(stored: $0) }),
        (try? table.put(definition)) != nil
      else { continue }
      orders[Array(id.text.utf8)] = api.order
      nextOrder = max(nextOrder, api.order + 1)
    }
  }

  private func note(_ id: String, _ order: UInt64) {
    orders[Array(id.utf8)] = order
    nextOrder = max(nextOrder, order + 1)
  }

  // MARK: Changes

  func create(_ body: UnsafeRawBufferPointer, _ done: @escaping (Outcome) -> Void) {
    var next = table
    do throws(APIError) {
      let definition = try next.create(body, change)
      keep(definition, order: nextOrder, next, done)
    } catch {
      done(.refused(error))
    }
  }

  func replace(_ id: String, _ body: UnsafeRawBufferPointer, _ done: @escaping (Outcome) -> Void) {
    var next = table
    do throws(APIError) {
      let definition = try next.replace(id: id, body, change)
      keep(definition, order: orders[Array(id.utf8)] ?? nextOrder, next, done)
    } catch {
      done(.refused(error))
    }
  }

  private func keep(
    _ definition: APIDefinition, order: UInt64, _ next: APITable, _ done: @escaping (Outcome) -> Void
  ) {
    let outcome = desk.setAPI(definition.id, order: order, json: definition.json)
    if case .kept = outcome {
      table = next
      note(definition.id, order)
    }
    confirm(outcome, done)
  }

  func remove(_ id: String, _ done: @escaping (Outcome) -> Void) {
    var next = table
    do throws(APIError) {
      try next.remove(id: id)
    } catch {
      return done(.refused(error))
    }
    let outcome = desk.removeAPI(id)
    if case .kept = outcome {
      table = next
      orders[Array(id.utf8)] = nil
    }
    confirm(outcome, done)
  }

  private func confirm(_ outcome: StateLog.Outcome, _ done: @escaping (Outcome) -> Void) {
    desk.carryOut(outcome) { result in
      switch result {
      case .done: done(.done)
      case .busy: done(.busy)
      case .tooMany:
        done(.refused(.full("the definition doesn't fit into the state ring (STATE_RING_BYTES)")))
      case .unconfirmed: done(.unconfirmed)
      }
    }
  }
}
