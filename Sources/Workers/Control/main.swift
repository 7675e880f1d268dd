// rig-control: the management port. Started by the supervisor, never by hand.

import Kit

WorkerProcess.run("control", findings: DefinitionsCheck.findings) { context in
  try ControlWorker.run(context)
}
