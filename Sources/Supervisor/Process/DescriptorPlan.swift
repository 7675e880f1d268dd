// Which descriptors a child gets, under which numbers. Everything else is close-on-exec and stays behind.
//
// The child's numbers begin above every descriptor of the supervisor that is handed out, so that no dup2 overwrites
// the source of a later one:
//
//   supervisor  3 … base-1      what is handed out
//   child       base …          in the order of the grants; the manifest is the one exception (see `grantManifest`)

/// Numbers of the supervisor (`sources`) and, at the same places, those that the child knows them by (`targets`).
struct DescriptorPlan: Equatable, Sendable {
  let base: CInt
  private(set) var sources: [CInt] = []
  private(set) var targets: [CInt] = []

  /// - Parameter base: above every descriptor that will be granted.
  init(base: CInt) {
    self.base = base
  }

  /// The child's number for the supervisor's descriptor `source`; the same again for a repeated grant.
  mutating func grant(_ source: CInt) -> CInt {
    if let index = sources.firstIndex(of: source) { return targets[index] }
    let target = base + CInt(targets.count)
    sources.append(source)
    targets.append(target)
    return target
  }

  /// The same for the manifest, whose descriptor is opened last and may have any number, even one of the targets: it is
  /// copied before anything can overwrite it. Call this after all other grants.
  mutating func grantManifest(_ source: CInt) -> CInt {
    let next = base + CInt(targets.count)
    // dup2 onto itself would leave it close-on-exec.
    let target = next == source ? next + 1 : next
    sources.insert(source, at: 0)
    targets.insert(target, at: 0)
    return target
  }
}
