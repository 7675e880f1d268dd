// Long-polling as frontends see it: contract §2.3.

import Testing

@Suite("Long-polling")
struct LongPollingTests {
  @Test("The first call opens a session with two cookies; the first poll brings the greeting")
  func session() throws {
    try Gateway.run { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to("greeting"))
      #expect(client.cookies.count == 2)
      for cookie in client.cookies {
        #expect(cookie.contains("HttpOnly"))
        #expect(cookie.contains("SameSite=Lax"))
        #expect(!cookie.contains("Secure"))
      }
      let events = try client.poll()
      #expect(events.map { $0["type"] } == ["rig.connection.create", "rig.subscriptions_set"])
      #expect(events.first?["data"]?["connection_token"]?.string == client.token)
    }
  }

  @Test("A waiting poll is answered as soon as there is an event", arguments: [true, false])
  func waiting(usesCookies: Bool) throws {
    try Gateway.run { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to("greeting"), usesCookies: usesCookies)
      _ = try client.poll()
      let request = client.request
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
      #expect(try !http.wire.receive(Deadline(after: 0.3)), "answered without an event")
      try gateway.publish(CloudEvent.json("greeting", id: "x"))
      let events = try client.events(of: try http.answer())
      #expect(events.map { $0["id"] } == ["x"])
    }
  }

  @Test(
    "A poll without events is answered with an empty list after the waiting time, whichever worker got it")
  func empty() throws {
    try Gateway.run(["LONGPOLLING_WAIT_S": "2"]) { gateway in
      // All wait at the same time, from the first second of the workers' lives on, half of them at another worker.
      let waiting = try (0..<8).map { _ -> (LongPollClient, HTTPConnection) in
        let client = try LongPollClient(gateway, "[]")
        #expect(try client.poll().count == 2)
        let http = try HTTPConnection(port: gateway.inboundPort)
        let request = client.request
        try http.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
        return (client, http)
      }
      for (client, http) in waiting { #expect(try client.events(of: try http.answer()) == []) }
    }
  }

  @Test("Nothing is lost between polls, an unacknowledged answer is given again, and order is kept")
  func buffering() throws {
    try Gateway.run { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      let before = client.request
      for number in 0..<20 { try gateway.publish(NumberedEvents.json(number)) }
      var seen: [JSON?] = []
      try eventually("all twenty have come") {
        seen += try client.poll().filter { $0["source"] != "rig" }.map { $0["id"] }
        return seen.count >= 20
      }
      #expect(
        seen.compactMap { $0?.string }
          == (0..<20).map { "n-" + String(repeating: "0", count: $0 < 10 ? 7 : 6) + "\($0)" })
      _ = before
      try gateway.publish(NumberedEvents.json(20))
      let request = client.request
      let first = try gateway.inbound("GET", request.path, headers: request.headers)
      let again = try gateway.inbound("GET", request.path, headers: request.headers)
      #expect(try first.json["events"]?.array?.count == 1)
      #expect(try first.json["events"] == again.json["events"])
    }
  }

  @Test("A session that isn't polled in time to hold everything is told how many events are lost")
  func overflow() throws {
    try Gateway.run(["LONGPOLLING_MAX_EVENTS": "10"]) { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      _ = try client.poll()
      let watcher = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      for number in 0..<30 { try gateway.publish(NumberedEvents.json(number)) }
      for _ in 0..<30 { try watcher.event(named: NumberedEvents.type) }
      var events: [JSON] = []
      try eventually("the last one has come") {
        events += try client.poll()
        return events.last?["id"]?.string == "n-00000029"
      }
      #expect(events.first?["type"] == "rig.events_lost")
      let lost = try #require(events.first?["data"]?["count"]?.integer)
      let delivered = events.filter { $0["type"]?.string == NumberedEvents.type }
      #expect(lost + delivered.count == 30)
      #expect(delivered.count >= 9)
    }
  }

  @Test("A session without a poll ends: its client begins anew with subscriptions, and is told so without")
  func expiry() throws {
    try Gateway.run(["LONGPOLLING_TIMEOUT_S": "1"]) { gateway in
      let client = try LongPollClient(gateway, "[]")
      let token = client.token
      try eventually("the session is gone") {
        try gateway.setSubscriptions("[]", of: token, path: "longpolling").status == 410
      }
      let request = client.request
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      for (_, http) in doors {
        let gone = try http.send("GET", request.path, headers: request.headers)
        try expectProblem(gone, 410, naming: "subscriptions")
        let cleared = gone.head.all("set-cookie")
        #expect(cleared.count == 2 && cleared.allSatisfy { $0.contains("=; Path=/; Max-Age=0") })
        let answer = try http.send(
          "GET", "\(request.path)?subscriptions=\(HTTP.encoded(Subscriptions.to("a")))",
          headers: request.headers)
        #expect(answer.status == 200)
        #expect(answer.text == #""ok""#)
      }
    }
  }

  /// A session that lives at the worker of `door`: the cookies of its client.
  private func session(_ door: HTTPConnection, _ subscriptions: String) throws -> (String, String) {
    cookies(try door.send("GET", "\(LongPollClient.path)?subscriptions=\(HTTP.encoded(subscriptions))"))
  }

  private func cookies(_ answer: HTTPAnswer) -> (String, String) {
    let pairs = answer.head.all("set-cookie").map { $0.prefix { $0 != ";" } }
    #expect(answer.status == 200 && pairs.count == 2)
    return ("cookie", pairs.joined(separator: "; "))
  }

  private func expectGone(_ answer: HTTPAnswer) throws {
    try expectProblem(answer, 410, naming: "subscriptions")
    let cleared = answer.head.all("set-cookie")
    #expect(cleared.count == 2 && cleared.allSatisfy { $0.contains("=; Path=/; Max-Age=0") })
  }

  @Test(
    "14.27 a poll that brings its subscriptions goes on after its worker's death, one without begins anew by 410"
  )
  func workerDeath() throws {
    try Gateway.run(Gateway.withoutKeepers) { gateway in
      let wanted = Subscriptions.to(NumberedEvents.type)
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      let cookie = try session(doors[0].1, wanted)
      var waiting = try session(doors[0].1, wanted)
      // This one waits at the other worker, and has had its greeting.
      let other = doors[1].1
      waiting = cookies(try other.send("GET", LongPollClient.path, headers: [waiting]))
      try other.wire.send(HTTPConnection.request("GET", LongPollClient.path, headers: [waiting]))
      #expect(try !other.wire.receive(Deadline(after: 0.2)), "answered without an event")
      let dying = try #require(gateway.workers(.connections).first { $0.pid == doors[0].0 })
      try gateway.killAndAwaitReplacement(dying)
      try expectGone(try other.answer())
      for number in 0..<3 { try gateway.publish(NumberedEvents.json(number)) }
      for _ in 0..<4 { try expectGone(try gateway.inbound("GET", LongPollClient.path, headers: [cookie])) }
      let anew = try LongPollClient(
        gateway, wanted,
        lastEventID: cookie.1.split(separator: "last_event_id=").last.map(String.init))
      var seen: [JSON?] = []
      try eventually("all three have come") {
        seen += try anew.poll().filter { $0["type"]?.string == NumberedEvents.type }.map { $0["id"] }
        return seen.count >= 3
      }
      #expect(seen.compactMap { $0?.string } == (0..<3).map { NumberedEvents.mark($0) })
    }
  }

  @Test("14.27 a poll whose worker hangs is 503, and finds its session when that goes on")
  func hungWorker() throws {
    try Gateway.run(["LONGPOLLING_WAIT_S": "1", "WATCHDOG_S": "3600"]) { gateway in
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      let cookie = try session(doors[0].1, Subscriptions.to("a"))
      let hung = try #require(gateway.workers(.connections).first { $0.pid == doors[0].0 })
      try hung.freeze()
      let answer = try doors[1].1.send("GET", LongPollClient.path, headers: [cookie])
      hung.thaw()
      try expectProblem(answer, 503, naming: "session")
      #expect(answer["retry-after"] != nil && answer.head.all("set-cookie").isEmpty)
      try gateway.publish(CloudEvent.json("a", id: "x"))
      try eventually("the event") {
        let poll = try doors[1].1.send("GET", LongPollClient.path, headers: [cookie])
        return poll.status == 200 && poll.text.contains(#""id":"x""#)
      }
    }
  }

  @Test("14.27 a token of another node is 410, and a poll with subscriptions begins anew")
  func otherNode() throws {
    try Gateway.run { other in
      let foreign = try LongPollClient(other, Subscriptions.to("a"))
      try Gateway.run { gateway in
        let request = foreign.request
        try expectGone(try gateway.inbound("GET", request.path, headers: request.headers))
        #expect(try gateway.setSubscriptions("[]", of: foreign.token).status == 410)
        let anew = try gateway.inbound(
          "GET", "\(request.path)?subscriptions=\(HTTP.encoded(Subscriptions.to("a")))",
          headers: request.headers)
        #expect(anew.status == 200 && anew.text == #""ok""#)
      }
    }
  }

  @Test("A cookie that is no token opens a new session")
  func badCookie() throws {
    try Gateway.run { gateway in
      for cookie in [
        "connection_token=x; last_event_id=y", "connection_token=",
        "connection_token=%00; last_event_id=\"1\"",
      ] {
        let answer = try gateway.inbound("GET", LongPollClient.path, headers: [("cookie", cookie)])
        #expect(answer.status == 200)
        #expect(answer.text == #""ok""#)
      }
    }
  }

  @Test("Any worker answers any poll")
  func anyWorker() throws {
    try Gateway.run { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      _ = try client.poll()
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      #expect(doors.count == 2)
      for number in 0..<10 {
        for (_, http) in doors {
          try gateway.publish(NumberedEvents.json(number))
          let request = client.request
          let events = try client.events(of: try http.send("GET", request.path, headers: request.headers))
          #expect(events.count == 1)
        }
      }
    }
  }

  @Test("With one origin configured credentials are allowed, with * they can't be")
  func credentials() throws {
    try Gateway.run(["CORS": "https://app.example.com"]) { gateway in
      let answer = try gateway.inbound(
        "GET", LongPollClient.path, headers: [("origin", "https://app.example.com")])
      #expect(answer["access-control-allow-origin"] == "https://app.example.com")
      #expect(answer["access-control-allow-credentials"] == "true")
      #expect(answer["vary"]?.lowercased().contains("origin") == true)
    }
    try Gateway.run { gateway in
      let answer = try gateway.inbound("GET", LongPollClient.path)
      #expect(answer["access-control-allow-origin"] == "*")
      #expect(answer["access-control-allow-credentials"] == nil)
    }
  }
}
