// rig-proxies: calls services for the other workers. Started by the supervisor, never by hand.

import Kit

WorkerProcess.run("proxies", findings: UpstreamTLS.findings) { context in
  try ProxiesWorker.run(context)
}
