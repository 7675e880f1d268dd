// Where the workers' executables are looked for.

import Glibc
import Settings
import TestSupport
import Testing

@testable import Supervisor

extension ProcessSuite {
  @Suite struct WorkerExecutablesTests {
    private func verify(_ directory: String, kafka: Bool) -> SupervisorError? {
      var settings = Settings()
      settings.kafkaBrokers = kafka ? ["localhost:9092"] : []
      do {
        try WorkerExecutables(directory: directory).verify(for: GatewayPlan(settings: settings))
        return nil
      } catch {
        return error
      }
    }

    @Test("all that are needed must be executable files; the first that isn't is named by its path")
    func verify() throws {
      let directory = try TestDirectory()
      let path = directory.path
      #expect(verify(path, kafka: false)?.description.contains("\(path)/rig-connections") == true)
      try directory.script("rig-connections", "")
      #expect(verify(path, kafka: false)?.description.contains("\(path)/rig-proxies") == true)
      try directory.script("rig-proxies", "")
      #expect(verify(path, kafka: false)?.description.contains("\(path)/rig-control") == true)
      try directory.script("rig-control", "")
      #expect(verify(path, kafka: false) == nil)
      #expect(verify(path, kafka: true)?.description.contains("\(path)/rig-streams") == true)
      #expect(verify(path, kafka: true)?.exitStatus == 72)
      mkdir("\(path)/rig-streams", 0o755)
      #expect(verify(path, kafka: true)?.exitStatus == 72)
    }

    @Test("they are expected beside our own executable")
    func beside() throws {
      let directory = try WorkerExecutables.besideSupervisor().directory
      #expect(directory.hasPrefix("/"))
      #expect(!directory.hasSuffix("/"))
    }
  }
}
