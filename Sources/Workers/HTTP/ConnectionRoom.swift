// How many connections are open at all the ports of a worker together: a bound on descriptors and memory knows no ports.

/// Counts for the servers that share it. Belongs to their loop.
public final class ConnectionRoom {
  /// Connections and streams of HTTP/2.
  public internal(set) var taken = 0
  /// Connections alone.
  public internal(set) var sockets = 0

  public init() {}
}
