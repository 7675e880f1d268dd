// rig-streams: the worker that consumes the source topics of Kafka into the event ring "events.streams", produces records
// for the connection workers, and passes on services' responses that come by Kafka.
//
// Nothing is lost and nothing is repeated endlessly: records go on from where the ring, or else the committed
// offset, says; a full ring holds the source back; offsets are committed when every connection worker has
// passed the records.

import Kit

WorkerProcess.run("streams", findings: PropertiesCheck.findings) { context in
  try PropertiesCheck.require(context.settings)
  try ConsumerLoop(context, properties: try ClientProperties.consumer(context.settings)).run()
}
