// What a process costs, in the units of /metrics. Pure.

/// The kernel's units on this machine.
struct KernelUnits: Equatable {
  var ticksPerSecond: Double
  var pageBytes: Int64
  /// Seconds since 1970.
  var bootTime: Double
}

/// The figures of one process.
struct ProcessFigures: Equatable {
  var cpuSeconds: Double
  var residentBytes: Int64
  var threads: Int64
  /// Seconds since 1970.
  var startTime: Double
  /// Nil: it can't be looked at.
  var openDescriptors: Int64?
  /// Nil: it can't be looked at, or there is no limit.
  var maximumDescriptors: Int64?

  init(_ stat: ProcStat, units: KernelUnits, openDescriptors: Int64?, maximumDescriptors: Int64? = nil) {
    cpuSeconds = Double(stat.userTicks &+ stat.systemTicks) / units.ticksPerSecond
    residentBytes = stat.residentPages &* units.pageBytes
    threads = stat.threads
    startTime = units.bootTime + Double(stat.startTicks) / units.ticksPerSecond
    self.openDescriptors = openDescriptors
    self.maximumDescriptors = maximumDescriptors
  }

  /// Puts the figures of the process called `worker` into a scrape.
  func put(into families: inout FamilyCollector, worker: String) {
    let labels = [(name: "worker", value: worker)]
    families.set(.counter, "rig_process_cpu_seconds_total", labels, .real(cpuSeconds))
    families.set(.gauge, "rig_process_resident_memory_bytes", labels, .integer(residentBytes))
    families.set(.gauge, "rig_process_threads", labels, .integer(threads))
    families.set(.gauge, "rig_process_start_time_seconds", labels, .real(startTime))
    if let openDescriptors {
      families.set(.gauge, "rig_process_open_fds", labels, .integer(openDescriptors))
    }
    if let maximumDescriptors {
      families.set(.gauge, "rig_process_max_fds", labels, .integer(maximumDescriptors))
    }
  }
}
