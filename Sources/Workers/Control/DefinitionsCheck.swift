// What the control worker says of the configuration: definitions, and what STATE_DIR holds of them.

import APIs
import Kit
import Settings

enum DefinitionsCheck {
  static func findings(_ settings: Settings) -> ConfigurationFindings {
    var found = ConfigurationFindings()
    let stamp = APIChange(timestamp: "", nodeName: "")
    if let table = found.judge({ try APIDesk.table(settings.proxyConfig, stamp) }) {
      found.warnings += CoveredEndpoints(table.all).warnings + table.all.flatMap(\.warnings)
    }
    guard !settings.stateDir.isEmpty else { return found }
    found.judge {
      let file = StateFile(directory: settings.stateDir)
      if let bytes = try file.read() { _ = try StateKeeper.decoded(bytes, of: file) }
    }
    found.judge { _ = try BlacklistFile(directory: settings.stateDir).read() }
    return found
  }
}
