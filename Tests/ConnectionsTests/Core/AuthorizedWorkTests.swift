// What tokens have authorised, and how it ends: pure, without a clock of its own.

import Kit
import Links
import Testing

@testable import Connections

@Suite("13.A3: authorised work")
struct AuthorizedWorkTests {
  private let work = AuthorizedWork()
  private let gone = SessionDigest(low: 1, high: 2)
  private let kept = SessionDigest(low: 3, high: 4)

  private final class Ends {
    var all: [(String, AuthorizationEnd)] = []
    var names: [String] { all.map(\.0) }
  }

  private func authorization(_ sessions: SessionDigest..., until: Double? = nil) -> Authorization {
    var authorization = Authorization()
    authorization.sessions = sessions
    authorization.credentials = [Credential(user: "alice", validUntil: until)]
    return authorization
  }

  private func begin(_ name: String, _ authorization: Authorization, _ ends: Ends) -> AuthorizedWork.Ticket? {
    work.begin(authorization) { ends.all.append((name, $0)) }
  }

  @Test("ends with its session, each once, and what is finished doesn't")
  func session() {
    let ends = Ends()
    _ = begin("a", authorization(gone), ends)
    _ = begin("b", authorization(kept, gone, until: 100), ends)
    let finished = begin("c", authorization(gone), ends)
    _ = begin("d", authorization(kept), ends)
    work.finish(finished)
    work.finish(finished)
    #expect(work.end(gone) == 2)
    #expect(ends.names == ["a", "b"] && ends.all.allSatisfy { $0.1 == .sessionEnded })
    #expect(work.end(gone) == 0 && work.sweep(unixSecond: 200) == 0)
    #expect(work.count == 1)
  }

  @Test("ends with its token, in the second in which that is over")
  func expiry() {
    let ends = Ends()
    _ = begin("early", authorization(until: 99.5), ends)
    _ = begin("late", authorization(gone, until: 101), ends)
    _ = begin("never", authorization(gone), ends)
    #expect(work.sweep(unixSecond: 99) == 0)
    #expect(work.sweep(unixSecond: 100) == 1 && ends.names == ["early"])
    #expect(work.sweep(unixSecond: 100) == 0)
    #expect(work.sweep(unixSecond: 500) == 1 && ends.names == ["early", "late"])
    #expect(ends.all.allSatisfy { $0.1 == .tokenExpired })
    #expect(work.count == 1)
  }

  @Test("that nothing can end costs nothing")
  func endless() {
    let ends = Ends()
    #expect(begin("none", Authorization(), ends) == nil)
    #expect(begin("endless", authorization(), ends) == nil)
    work.finish(nil)
    #expect(work.count == 0)
  }

  @Test("may finish others, and begin new ones, while it is ended")
  func reentrant() {
    let ends = Ends()
    var second: AuthorizedWork.Ticket?
    _ = work.begin(authorization(gone)) { [work, gone] _ in
      work.finish(second)
      var more = Authorization()
      more.sessions = [gone]
      _ = work.begin(more) { ends.all.append(("new", $0)) }
    }
    second = begin("second", authorization(gone), ends)
    _ = work.end(gone)
    #expect(ends.names == [] && work.count == 1)
    #expect(work.end(gone) == 1 && ends.names == ["new"])
  }
}
