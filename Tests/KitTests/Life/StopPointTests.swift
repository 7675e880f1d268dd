import Testing

@testable import Kit

@Suite("16 Stop points: where a test lets a worker stop itself")
struct StopPointTests {
  @Test("16 A part of RIG_TEST_STOP_AT names a step, and may name place, process of the place and count")
  func parts() throws {
    let plain = try #require(StopPoint.Stop("sentUnnoted"))
    #expect(plain.step == .sentUnnoted && plain.place == nil && plain.incarnation == 1 && plain.passes == 1)
    let full = try #require(StopPoint.Stop("connections.1:entryAdopted#2@30"))
    #expect(full.step == .entryAdopted && full.place == "connections.1")
    #expect(full.incarnation == 2 && full.passes == 30)
  }

  @Test(
    "16 What isn't in that form is refused",
    arguments: [
      "", "sent", "sentUnnoted@0", "sentUnnoted@x", "sentUnnoted#0", "sentUnnoted@1#2", "a:b:greeting",
    ])
  func malformed(text: String) {
    #expect(StopPoint.Stop(text[...]) == nil)
  }
}
