// How many connections are open at all the ports of a worker together: a bound on descriptors and memory knows no ports.

/// Counts for the servers that share it. Belongs to their loop.
public final class ConnectionRoom {
  public internal(set) var taken = 0

  public init() {}
}
