// rig-control: the management port. Started by the supervisor, never by hand.

import FoundationEssentials
import Glibc
import Kit

if CommandLine.arguments.contains(ConfigurationCheck.option) {
  exit(
    ConfigurationCheck.run(
      Array(CommandLine.arguments.dropFirst()), ProcessInfo.processInfo.environment))
}

WorkerProcess.run("control") { context in
  try ControlWorker.run(context)
}
