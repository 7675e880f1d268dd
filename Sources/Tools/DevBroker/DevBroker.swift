// rig-devbroker: a Kafka broker for development and tests, in one process that leaves nothing behind.
//
// First line on stdout: the address for KAFKA_BROKERS. With --commands each line of stdin is a command
// (BrokerCommand), answered on stdout by "ok" or "error: reason". It sleeps in poll until something happens and
// never wakes up by itself; librdkafka's own threads do so once a second.

import ArgumentParser
import CLinux
import CRdKafka
import Glibc

@main
struct DevBroker: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rig-devbroker",
    abstract: "A Kafka broker for development: everything is in memory and is lost when it ends.",
    discussion: """
      Prints its bootstrap address as the first line. Runs until SIGTERM or SIGINT.

      With --commands it reads from standard input: down BROKER, up BROKER, rtt BROKER MILLISECONDS, \
      topic NAME[:PARTITIONS], leader TOPIC PARTITION BROKER; BROKER may be "all". Each is answered by one line.
      """)

  @Option(help: "A topic to create: NAME or NAME:PARTITIONS; several may be given, also comma-separated.")
  var topic: [String] = ["rig"]

  @Option(help: "How many brokers the cluster has, 1 to 16.")
  var brokers: Int32 = 1

  @Flag(help: "End when the parent process ends.")
  var dieWithParent = false

  @Flag(help: "Read commands from standard input; its end does not end the broker.")
  var commands = false

  func validate() throws {
    guard (1...16).contains(brokers) else {
      throw ValidationError("--brokers is \(brokers), expected 1 to 16")
    }
  }

  func run() throws {
    let parent = getppid()
    // Before the first thread, so that no thread of librdkafka takes a signal.
    let stopping = try stopDescriptor()
    signal(SIGPIPE, SIG_IGN)
    if dieWithParent {
      guard rig_set_parent_death_signal(SIGKILL) == 0 else { throw SystemFailure(call: "prctl") }
      guard getppid() == parent else { return }
    }
    let cluster = try MockCluster(brokers: brokers)
    for name in topic.flatMap({ $0.split(separator: ",") }) {
      try cluster.perform(.topic(TopicOption(name)))
    }
    Output.say("\(cluster.bootstrap)\n")
    Output.note(
      """
      rig-devbroker: for development only. Records are kept in memory, at most 5 MB per partition, \
      and are lost when it ends.

      """)
    try serve(cluster, until: stopping)
  }

  /// Waits for signals and commands.
  private func serve(_ cluster: borrowing MockCluster, until stopping: CInt) throws {
    var lines = LineSplitter(maximumLength: 4096)
    // poll leaves out descriptors below 0.
    var input = commands ? STDIN_FILENO : -1
    while true {
      var waits = [
        pollfd(fd: stopping, events: Int16(POLLIN), revents: 0),
        pollfd(fd: input, events: Int16(POLLIN), revents: 0),
      ]
      guard poll(&waits, nfds_t(waits.count), -1) >= 0 || errno == EINTR else {
        throw SystemFailure(call: "poll")
      }
      if waits[0].revents != 0 { return }
      guard waits[1].revents != 0 else { continue }
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = read(input, &bytes, bytes.count)
      guard count > 0 else {
        if count == 0 || (errno != EINTR && errno != EAGAIN) { input = -1 }
        continue
      }
      for line in lines.add(bytes[..<count]) {
        Output.say(answer(to: line, by: cluster))
      }
    }
  }

  private func answer(to line: String, by cluster: borrowing MockCluster) -> String {
    do {
      try cluster.perform(BrokerCommand(line: line))
      return "ok\n"
    } catch {
      return "error: \(error)\n"
    }
  }

  /// Readable once TERM or INT has come.
  private func stopDescriptor() throws -> CInt {
    let signals = [SIGTERM, SIGINT]
    let blocked = rig_block_signals(signals, CInt(signals.count))
    guard blocked == 0 else { throw SystemFailure(call: "pthread_sigmask", number: blocked) }
    let descriptor = rig_signalfd(signals, CInt(signals.count))
    guard descriptor >= 0 else { throw SystemFailure(call: "signalfd") }
    return descriptor
  }
}
