// rig-connections: holds the connections of frontends and delivers events to them. Started by the supervisor, never by hand.

import Kit

WorkerProcess.run("connections", findings: KeysCheck.findings) { context in
  try ConnectionsWorker.run(context)
}
