// What the limit on descriptors leaves for connections.

import Testing

@testable import Settings

@Suite("14.E29 Descriptors")
struct DescriptorBudgetTests {
  @Test(
    "14.E29 A limit that there are descriptors for stays, one above is lowered to what there is room for beside refusals, and said"
  )
  func lowered() throws {
    var settings = Settings()
    let ample = DescriptorBudget(limit: 20_000, shared: 100)
    #expect(ample.longLived < ample.connections && ample.connections < 20_000 - 100)
    let unsaid = settings.lower(to: ample, limit: 20_000)
    #expect(unsaid == nil && settings == Settings())
    let few = DescriptorBudget(limit: 1024, shared: 100)
    let lowered = settings.lower(to: few, limit: 1024)
    let said = try #require(lowered)
    #expect(settings.maxOpenConnectionsPerWorker == few.longLived && few.longLived < 924)
    for part in ["MAX_CONNECTIONS_PER_WORKER", "10000", "1024", "\(few.longLived)"] {
      #expect(said.contains(part), "\(said)")
    }
  }

  @Test("14.E29 However few there are, somebody is served")
  func tiny() {
    #expect(DescriptorBudget(limit: 10, shared: 100).longLived > 0)
    #expect(DescriptorBudget.ofThisProcess.connections > 0)
  }
}
