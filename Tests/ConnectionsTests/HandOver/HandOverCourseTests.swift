// In which order a hand-over goes, whatever comes when.

import Testing

@testable import Connections

/// A course as something that a test may ask within an expectation.
@dynamicMemberLookup
private final class Course {
  private var course = HandOverCourse()

  subscript<Value>(dynamicMember path: KeyPath<HandOverCourse, Value>) -> Value { course[keyPath: path] }

  func asked(_ number: UInt64, by heir: UInt64 = 8, at nowNs: UInt64 = 0) -> HandOverCourse.Settlement? {
    course.asked(HandOverCourse.Ask(heir: heir, number: number, positions: []), nowNs: nowNs)
  }

  func sent(at nowNs: UInt64 = 0) { course.sent(nowNs: nowNs) }

  func taken(_ number: UInt64, by heir: UInt64 = 8) -> HandOverCourse.Settlement? {
    course.taken(number, by: heir)
  }

  func look(at nowNs: UInt64) -> HandOverCourse.Settlement? {
    course.look(nowNs: nowNs, patienceNs: 1_000)
  }

  func stop() -> HandOverCourse.Settlement? { course.stop() }
}

@Suite("16.6 The course of a hand-over")
struct HandOverCourseTests {
  private static let patience: UInt64 = 1_000

  private func waits(_ number: UInt64, by heir: UInt64 = 8, since nowNs: UInt64 = 0) -> HandOverCourse.State {
    .asked(HandOverCourse.Ask(heir: heir, number: number, positions: []), sinceNs: nowNs)
  }

  @Test("16.6 goes from ask to ask, and each number is answered once")
  func inOrder() {
    let course = Course()
    #expect(course.heir == nil && !course.isInTheAir)
    for number in 1...3 as ClosedRange<UInt64> {
      #expect(course.asked(number, at: 5) == nil && course.state == waits(number, since: 5))
      // It asks again each second until it is answered; nothing begins anew by that.
      #expect(course.asked(number, at: 6) == nil && course.state == waits(number, since: 5))
      course.sent(at: 7)
      #expect(course.isInTheAir && course.heir == 8)
      #expect(course.asked(number, at: 8) == nil && course.isInTheAir)
      #expect(course.taken(number) == .taken && course.taken(number) == nil)
      #expect(course.asked(number, at: 9) == nil && course.state == .answered(heir: 8, number: number))
    }
  }

  @Test("16.6 takes a batch back when its time is up, and answers that number no more")
  func late() {
    let course = Course()
    #expect(course.asked(1) == nil)
    course.sent(at: 10)
    #expect(course.look(at: 9 + Self.patience) == nil)
    #expect(course.look(at: 10 + Self.patience) == .takenBack)
    #expect(course.look(at: 11 + Self.patience) == nil && !course.isInTheAir)
    // The heir may have the batch unread, and claim what is offered anew: not before it has dealt with this one.
    #expect(course.asked(1) == nil && course.state == .answered(heir: 8, number: 1))
    #expect(course.taken(1) == nil)
    #expect(course.asked(2, at: 3) == nil && course.state == waits(2, since: 3))
  }

  @Test("16.6 ends what is in the air when the next is asked for, by the same heir or its own")
  func overtaken() {
    let course = Course()
    #expect(course.asked(1) == nil)
    course.sent()
    // That it has taken the batch was lost; it wouldn't ask before.
    #expect(course.asked(2, at: 1) == .taken && course.state == waits(2, since: 1))
    course.sent(at: 2)
    // It died: what it has claimed is in its ledger, and the rest comes back.
    #expect(course.asked(1, by: 9, at: 3) == .takenBack && course.state == waits(1, by: 9, since: 3))
    // What it had said before is nothing any more.
    #expect(course.asked(3, at: 4) == nil && course.state == waits(1, by: 9, since: 3))
    course.sent(at: 5)
    #expect(course.taken(1, by: 8) == nil && course.asked(4, at: 6) == nil)
    #expect(course.taken(2, by: 9) == nil && course.isInTheAir)
    #expect(course.taken(1, by: 9) == .taken)
    #expect(course.asked(5, at: 7) == nil && course.asked(1, by: 10, at: 7) == nil)
    #expect(course.heir == 10)
  }

  @Test("16.6 has nothing in the air that wasn't asked for, and comes down at once when it is stopped")
  func stopped() {
    let course = Course()
    course.sent()
    #expect(course.state == .unasked && course.stop() == nil && course.taken(0, by: 0) == nil)
    #expect(course.asked(1) == nil && course.stop() == nil)
    course.sent()
    #expect(course.stop() == .takenBack && course.stop() == nil)
  }
}
