// RIG's own example pages in a real browser, from another origin than the gateway's: they make the calls that they make of RIG 3,
// and work.

import Testing

@Suite("14.D20 RIG's example pages", .serialized)
struct ExamplePageTests {
  private static let browserless: Comment = "\(Browser.absence ?? "")"

  @Test(
    "14.D20 A page of RIG's connects, subscribes, sends events, and shows those that it asked for and no others",
    .enabled(if: Browser.absence == nil, browserless), arguments: ExamplePage.all)
  func works(page: ExamplePage) throws {
    try Self.withPage(page) { shown, gateway in
      try shown.waitUntilSubscribed()
      var expected: [JSON] = []
      for name in ["mike"] + (page.names ?? []) {
        if page.sends { try shown.send(name, "by the page, for \(name)") }
        try gateway.publish(Self.event(page, name, "by a service, for \(name)"))
        guard page.shows(name) else { continue }
        if page.sends { expected.append(page.data(name, "by the page, for \(name)")) }
        expected.append(page.data(name, "by a service, for \(name)"))
      }
      try shown.wait(showing: expected)
      let transport = ["transport": page.transport.rawValue]
      try eventually("the gateway counts one connection, its subscriptions, and what it got") {
        try gateway.metric("rig_connections", transport) == 1 && gateway.metric("rig_connections") == 1
          && gateway.metric("rig_subscriptions_total") == Double(page.subscriptions)
          && gateway.metric("rig_consumed_events_forwarded_total", ["type": page.type])
            == Double(expected.count)
      }
    }
  }

  @Test(
    "14.D20 A long-polling page that is loaded again goes on with its session",
    .enabled(if: Browser.absence == nil, browserless), arguments: ["lp-1-demo", "lp-demo-single-call"])
  func loadedAgain(name: String) throws {
    let page = try #require(ExamplePage.all.first { $0.name == name })
    try Self.withPage(page) { shown, gateway in
      try shown.waitUntilSubscribed()
      try shown.loadAgain()
      try shown.waitUntilUsable()
      try shown.send("", "after all")
      try shown.wait(showing: ["after all"])
      #expect(try gateway.metric("rig_connections") == 1)
    }
  }

  @Test("14.D20 Each of their calls, made as browsers do for a page of another origin, is answered readably")
  func calls() throws {
    let origin = "http://localhost:8080"
    try Gateway.run(["CORS": origin, "JWT_SECRET_KEY": ExamplePage.secret]) { gateway in
      func call(
        _ method: String, _ path: String, _ fields: [(String, String)], _ body: String?, _ status: Int
      ) throws -> HTTPAnswer {
        let answer = try gateway.inbound(
          method, "/_rig/v1/\(path)", headers: [("origin", origin), ("accept", "*/*")] + fields, body: body)
        #expect(answer.status == status, "\(method) \(path): \(answer.text)")
        #expect(answer["access-control-allow-origin"] == origin, "\(method) \(path)")
        return answer
      }
      func preflight(_ method: String, _ path: String, _ names: String) throws {
        let asked = [
          ("access-control-request-method", method), ("access-control-request-headers", names),
        ]
        let answer = try call("OPTIONS", path, asked, nil, 204)
        #expect(answer["access-control-allow-methods"]?.contains(method) == true, "\(path)")
        #expect(answer["access-control-allow-headers"] == names, "\(path)")
      }
      let json = ("content-type", "application/json; charset=utf-8")

      try preflight("POST", "events", "content-type")
      for type in [json, ("content-type", "application/cloudevents+json; charset=utf-8")] {
        let event =
          #"{"cloudEventsVersion":"0.1","eventID":"1","eventType":"greeting","source":"p","data":"hello"}"#
        let answer = try call("POST", "events", [type], event, 202)
        #expect(try answer.json["eventType"] == "greeting")
      }

      _ = try call("GET", "connection/init", [], nil, 404)
      let list = "[{%22eventType%22:%22greeting%22}]"
      let first = try call("GET", "connection/longpolling?subscriptions=\(list)", [], nil, 200)
      #expect(first.text == #""ok""#)
      #expect(first["access-control-allow-credentials"] == "true")
      #expect(first.head.all("set-cookie").count == 2)

      // A field that no extractor knows for the type matches nothing, and is no mistake.
      let never = #"{"subscriptions":[{"eventType":"example","oneOf":[{"name":"yolo"}]}]}"#
      let stream = try SSEClient(gateway, query: "subscriptions=\(list)")
      try stream.greet()
      let token = stream.token
      let bearer = TestToken.bearer(ExamplePage.john)
      for alias in ["sse", "ws", "longpolling"] {
        let path = "connection/\(alias)/\(token)/subscriptions"
        try preflight("PUT", path, "authorization,content-type")
        _ = try call("PUT", path, [json, bearer], never, 204)
        _ = try call("PUT", "connection/\(alias)/null/subscriptions", [json], never, 400)
      }
    }
  }

  /// An event of a service, as RIG's examples have them.
  private static func event(_ page: ExamplePage, _ name: String, _ greeting: String) -> String {
    """
    {"cloudEventsVersion":"0.1","eventType":"\(page.type)","eventID":"s-\(name)","source":"service",\
    "eventTime":"2026-11-30T12:00:00Z","contentType":"application/json","data":\(page.data(name, greeting))}
    """
  }

  /// Runs `body` with the page open in a browser; then it may have been refused only what RIG refuses too.
  private static func withPage(
    _ page: ExamplePage, _ body: (ShownPage, Gateway) throws -> Void
  ) throws {
    let server = try TestService()
    defer { server.stop() }
    // Browsers send cookies only to who names their origin.
    var settings = page.settings
    let origin = "http://localhost:\(server.port)"
    if page.transport == .longPolling {
      settings["CORS"] = origin
      settings["LONGPOLLING_WAIT_S"] = "2"
    }
    try Gateway.run(settings) { gateway in
      server.behave(
        .answer(
          200, body: page.html(port: gateway.inboundPort),
          fields: [("content-type", "text/html; charset=utf-8")]))
      try Browser.run { browser in
        try browser.open("\(origin)/\(HTTP.encoded(page.name)).html")
        let shown = ShownPage(browser: browser, page: page)
        try body(shown, gateway)
        try shown.expectNoMistakes()
      }
    }
  }
}

/// What a person does with a page, and sees on it.
private struct ShownPage {
  let browser: Browser
  let page: ExamplePage

  func waitUntilSubscribed() throws {
    try browser.page.wait(
      "it has its subscriptions",
      until: "\(Self.texts("log")).includes('subscriptions \(page.subscriptions)')")
  }

  /// By the page's form, and until it is accepted.
  func send(_ name: String, _ greeting: String) throws {
    let sent = "\(Self.texts("log")).filter((text) => text === 'sent \(page.type)').length"
    let before = try browser.page.evaluate(sent).integer ?? 0
    for (id, text) in [("name", name), ("greeting", greeting)] {
      try browser.page.evaluate("document.getElementById('\(id)').value = \(JSON.string(text))")
    }
    try browser.page.evaluate("document.querySelector('button').click()")
    try browser.page.wait("it has sent '\(greeting)'", until: "\(sent) === \(before + 1)")
  }

  /// Until the page shows as many events; then they must be these, in this order.
  func wait(showing expected: [JSON]) throws {
    var events: [JSON] = []
    try eventually("the page shows \(expected.count) events") {
      events = try list("events").map { try JSON(parsing: $0) }
      // Who polls while an answer is on its way gets it twice, from RIG too.
      if page.pollsByTheClock { events = events.reduce(into: []) { if !$0.contains($1) { $0.append($1) } } }
      return events.count >= expected.count
    }
    #expect(events == expected)
  }

  func waitUntilUsable() throws {
    try browser.page.wait("its form can be used", until: "!document.querySelector('button').disabled")
  }

  func loadAgain() throws {
    try browser.page.evaluate("document.title = 'before'")
    try browser.page.call("Page.reload")
    try browser.page.wait("it is loaded again", until: "document.title === \(JSON.string(page.name))")
  }

  func expectNoMistakes() throws {
    let expected = ["sent \(page.type)", "put 204"] + (page.isHasty ? ["put 400"] : [])
    let mistakes = try list("log").filter { !expected.contains($0) && !$0.hasPrefix("subscriptions ") }
    #expect(mistakes.isEmpty)
    let refused = browser.complaints.filter { $0.contains("the server responded with a status of 4") }
    #expect(refused.count == page.refusals)
    #expect(browser.complaints.count == refused.count, "\(browser.complaints)")
  }

  private func list(_ id: String) throws -> [String] {
    try browser.page.evaluate(Self.texts(id)).array?.compactMap(\.string) ?? []
  }

  /// JavaScript: the texts of a list's items.
  private static func texts(_ id: String) -> String {
    "[...document.querySelectorAll('#\(id) li')].map((item) => item.textContent)"
  }
}
