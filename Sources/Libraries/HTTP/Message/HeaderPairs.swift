// Fields on their way between workers: names and values, alternately.

extension HTTPFields {
  public init(alternating pairs: [String]) {
    self.init()
    reserveCapacity(pairs.count / 2)
    for index in stride(from: 0, to: pairs.count - 1, by: 2) {
      add(name: pairs[index], value: pairs[index + 1])
    }
  }

  public var alternating: [String] { flatMap { [$0.name, $0.value] } }
}
