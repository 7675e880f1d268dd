// rig-connections: holds the connections of frontends and delivers events to them. Started by the supervisor, never by hand.

import HTTP
import Kit
import Settings
import Tokens

/// What this worker says of the configuration: certificates of the TLS ports, and keys of tokens.
func findings(_ settings: Settings) -> ConfigurationFindings {
  var found = ConfigurationFindings()
  if settings.hasTLS { found.judge { _ = try TLSFront(settings: settings) } }
  ConfiguredVerifier.judge(settings, &found)
  return found
}

WorkerProcess.run("connections", findings: findings, rehearsal: Rehearsal.perform) { context in
  try ConnectionsWorker.run(context)
}
