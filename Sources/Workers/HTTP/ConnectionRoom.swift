// What the ports of a worker share: a bound on descriptors and memory, and the turns of the loop, know no ports.

/// Counts for the servers that share it. Belongs to their loop.
public final class ConnectionRoom {
  /// Connections and streams of HTTP/2.
  public internal(set) var taken = 0
  /// Connections alone.
  public internal(set) var sockets = 0
  let turns: InputTurns

  public convenience init() { self.init(InputTurns()) }

  init(_ turns: InputTurns) {
    self.turns = turns
  }
}
