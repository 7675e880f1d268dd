// The demo page in a real browser: what it shows of events that come by both transports, and that it asks nobody but
// the gateway for anything.

import Glibc
import Testing

@Suite("Demo page")
struct DemoPageTests {
  private static let path = "/_rig/demo"
  private static let extractors = [
    "EXTRACTORS": #"{"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}}}}"#
  ]
  private static let transports = ["sse", "ws"]
  /// The narrowest window that content has to fit into (WCAG 2.2, 1.4.10).
  private static let narrow = 320
  /// JavaScript: whether no card reaches the window's edge and nothing can be scrolled sideways.
  private static let fits = """
    document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll("form, section, ol, pre")] \
    .every((part) => part.getBoundingClientRect().right < innerWidth - 8 && part.scrollWidth <= part.clientWidth)
    """
  private static let browserless: Comment = "\(Browser.absence ?? "")"

  @Test(
    "Events published by the page and elsewhere appear in both lists",
    .enabled(if: Browser.absence == nil, browserless))
  func events() throws {
    try Self.withPage { page, gateway in
      try page.fill(["type": "greeting", "data": #"{"name":"John","message":"by the page"}"#])
      try page.submit("publish", expecting: "accepted")
      // Events of two origins have no order between them: the second one waits for the first.
      for transport in Self.transports { try page.wait(transport, shows: 1, of: "greeting") }
      try gateway.publish(CloudEvent.json("greeting", id: "2", data: #"{"name":"<b>Mary</b>"}"#))
      for transport in Self.transports {
        try page.wait(transport, shows: 2, of: "greeting")
        let texts = try page.texts(transport, of: "greeting")
        #expect(texts[1].contains("by the page"), "\(transport): \(texts)")
        #expect(texts[0].contains("<b>Mary</b>"), "\(transport): \(texts)")
      }
      try page.photograph("events")
      try page.click("[data-clear=sse]")
      #expect(try page.texts("sse").isEmpty)
      #expect(try page.texts("ws", of: "greeting").count == 2)
    }
  }

  @Test(
    "Subscriptions set by the page decide what comes from then on, after a reconnection too",
    .enabled(if: Browser.absence == nil, browserless))
  func subscriptions() throws {
    try Self.withPage(Gateway.withoutKeepers) { page, gateway in
      try page.fill(["types": "greeting, farewell", "constraints": ""])
      try page.submit("subscribe", expecting: "set")
      try gateway.publish(CloudEvent.json("greeting"))
      try gateway.publish(CloudEvent.json("farewell"))
      for transport in Self.transports {
        try page.wait(transport, shows: 1, of: "farewell")
        #expect(try page.texts(transport, of: "greeting").count == 1, "\(transport)")
      }

      try page.fill(["types": "greeting", "constraints": #"[{"name":"John"}]"#])
      try page.submit("subscribe", expecting: "set")
      for name in ["Mary", "John"] {
        try gateway.publish(CloudEvent.json("farewell", data: #"{"name":"\#(name)"}"#))
        try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"\#(name)"}"#))
      }
      for transport in Self.transports {
        try page.wait(transport, shows: 2, of: "greeting")
        #expect(try page.texts(transport, of: "greeting")[0].contains("John"), "\(transport)")
        #expect(try page.texts(transport, of: "farewell").count == 1, "\(transport)")
      }

      // What stands in the form but wasn't set has no say.
      try page.fill(["types": "nothing", "constraints": "[not JSON"])
      let workers = gateway.workers(.connections)
      for worker in workers { kill(worker.pid, SIGKILL) }
      for worker in workers {
        try gateway.awaitReplacement(of: worker, kind: .connections, count: workers.count)
      }
      for transport in Self.transports { try page.waitUntilConnected(transport, times: 2) }
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"John","is":"last"}"#))
      for transport in Self.transports { try page.wait(transport, shows: 3, of: "greeting") }
    } complaints: {
      // Connections that break are what the test is about.
      $0.contains("ERR_") || $0.contains("WebSocket connection to")
    }
  }

  @Test(
    "14.C17 Both lists show what was published while the page wasn't connected, once",
    .enabled(if: Browser.absence == nil, browserless))
  func resumption() throws {
    try Self.withPage(Gateway.withoutKeepers) { page, gateway in
      let workers = gateway.workers(.connections)
      for worker in workers { kill(worker.pid, SIGKILL) }
      // Read by the new workers before the page, which waits for 2 s, has come back.
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"John","is":"between"}"#))
      for worker in workers {
        try gateway.awaitReplacement(of: worker, kind: .connections, count: workers.count)
      }
      for transport in Self.transports { try page.waitUntilConnected(transport, times: 2) }
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"John","is":"last"}"#))
      for transport in Self.transports {
        try page.wait(transport, shows: 2, of: "greeting")
        let texts = try page.texts(transport, of: "greeting")
        #expect(texts[0].contains("last") && texts[1].contains("between"), "\(transport): \(texts)")
        #expect(try page.texts(transport, of: "rig.events_lost").isEmpty)
      }
    } complaints: {
      $0.contains("ERR_") || $0.contains("WebSocket connection to")
    }
  }

  @Test(
    "16.6 Twenty kills of connection workers: a page's EventSource and WebSocket see no error, no close and no gap",
    .enabled(if: Browser.absence == nil, browserless))
  func kills() throws {
    try Self.withPage { page, gateway in
      try page.evaluate(Self.watch)
      try page.wait("the page's own connections are open", until: "watched.open === 2")
      var published = 0
      for _ in 0..<10 {
        for _ in 0..<3 {
          try gateway.publish(CloudEvent.json("tick", id: String(published)))
          published += 1
        }
        try gateway.killConnectionWorkers()
      }
      try gateway.publish(CloudEvent.json("tick", id: String(published)))
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"John"}"#))
      let all = "JSON.stringify([...Array(\(published + 1)).keys()].map(String))"
      for transport in Self.transports {
        try page.wait("every event by \(transport)", until: "JSON.stringify(watched.\(transport)) === \(all)")
        // What the page shows: it has been connected once.
        try page.wait(transport, shows: 1, of: "greeting")
        try page.waitUntilConnected(transport, times: 1)
      }
      #expect(try page.evaluate("watched.faults").array == [])
    }
  }

  /// JavaScript: connections of the page by both transports that note everything.
  private static let watch = """
    {
      window.watched = {sse: [], ws: [], faults: [], open: 0};
      const wanted = "?subscriptions=" + encodeURIComponent(JSON.stringify([{eventType: "tick"}]));
      const source = new EventSource("/_rig/v1/connection/sse" + wanted);
      source.onopen = () => watched.open += 1;
      source.onerror = () => watched.faults.push("EventSource: error");
      source.addEventListener("tick", (event) => watched.sse.push(JSON.parse(event.data).id));
      const socket = new WebSocket("ws://" + location.host + "/_rig/v1/connection/ws" + wanted);
      socket.onopen = () => watched.open += 1;
      socket.onerror = () => watched.faults.push("WebSocket: error");
      socket.onclose = (event) => watched.faults.push("WebSocket: close " + event.code);
      socket.onmessage = (message) => {
        const event = JSON.parse(message.data);
        if (event.type === "tick") watched.ws.push(event.id);
      };
    }
    """

  @Test(
    "What is refused is said on the page, and mistakes in JSON too",
    .enabled(if: Browser.absence == nil, browserless))
  func refusals() throws {
    try Self.withPage { page, _ in
      try page.fill(["types": "greeting", "constraints": #"{"name":"John"}"#])
      try page.submit("subscribe", expecting: "400")
      try page.fill(["constraints": "[not JSON"])
      try page.submit("subscribe", expecting: "JSON")
      try page.fill(["data": "{"])
      try page.submit("publish", expecting: "JSON")
      try page.fill(["type": String(repeating: "long", count: 10_000), "data": "null"])
      try page.submit("publish", expecting: "400: type has 40000 bytes")
    } complaints: {
      $0.contains("the server responded with a status of 4")
    }
  }

  @Test(
    "Nothing is cut off in a narrow window, in light and in dark",
    .enabled(if: Browser.absence == nil, browserless))
  func appearance() throws {
    try Self.withPage { page, gateway in
      let long = String(repeating: "word", count: 60)
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"John","message":"\#(long)"}"#))
      for transport in Self.transports { try page.wait(transport, shows: 1, of: "greeting") }
      var colours: [String] = []
      for (name, width, isDark) in [
        ("wide-light", 1200, false), ("wide-dark", 1200, true), ("narrow-light", Self.narrow, false),
      ] {
        try page.browser.show(width: width, height: 1600, isDark: isDark)
        try page.wait("\(name): every part is inside the window's margins", until: Self.fits)
        colours.append(try page.evaluate("getComputedStyle(document.body).backgroundColor").string ?? "")
        try page.photograph(name)
      }
      #expect(colours[0] != colours[1])
      #expect(colours[0] == colours[2])
    }
  }

  @Test("There is no demo page unless --dev is given")
  func notInProduction() throws {
    try Gateway.run { gateway in
      try expectProblem(try gateway.inbound("GET", Self.path), 404, naming: Self.path)
    }
  }

  /// Runs `body` with the page open and connected by both transports; then nothing may have gone wrong in it, and it may
  /// have asked the gateway only.
  ///
  /// - Parameter complaints: which complaints of the browser the test provokes.
  private static func withPage(
    _ settings: [String: String] = [:], _ body: (DemoPageInBrowser, Gateway) throws -> Void,
    complaints isExpected: (String) -> Bool = { _ in false }
  ) throws {
    try Gateway.run(extractors.merging(settings) { $1 }, arguments: ["--dev"]) { gateway in
      try Browser.run { browser in
        let authority = "localhost:\(gateway.inboundPort)"
        try browser.open("http://\(authority)\(path)")
        let page = DemoPageInBrowser(browser: browser)
        for transport in transports { try page.waitUntilConnected(transport) }
        try body(page, gateway)
        let complaints = browser.complaints.filter { !isExpected($0) }
        #expect(complaints.isEmpty)
        let own = ["http://\(authority)/_rig/", "ws://\(authority)/_rig/", "data:,"]
        let foreign = browser.requests.filter { request in !own.contains { request.hasPrefix($0) } }
        #expect(foreign.isEmpty)
        #expect(browser.requests.count >= 3)
      }
    }
  }
}

/// What a person does with the page, and sees on it.
private struct DemoPageInBrowser {
  let browser: Browser

  /// The state says so, and the greeting with the connection's token has come, as often as there were connections.
  func waitUntilConnected(_ transport: String, times: Int = 1) throws {
    try wait(transport, shows: times, of: "rig.connection.create")
    try wait(
      "\(transport) is connected",
      until: "document.getElementById('\(transport)-state').textContent === 'connected'")
  }

  func fill(_ fields: [String: String]) throws {
    for (id, text) in fields {
      try evaluate("document.getElementById(\(JSON.string(id))).value = \(JSON.string(text))")
    }
  }

  func click(_ selector: String) throws {
    try evaluate("document.querySelector(\(JSON.string(selector))).click()")
  }

  /// Presses the form's button and waits until its output contains `text`.
  func submit(_ form: String, expecting text: String) throws {
    try evaluate("document.querySelector('#\(form) output').textContent = ''")
    try click("#\(form) button")
    try wait(
      "\(form): \(text)",
      until: "document.querySelector('#\(form) output').textContent.includes(\(JSON.string(text)))")
  }

  /// The texts of a list's events, the latest first.
  func texts(_ transport: String, of type: String? = nil) throws -> [String] {
    let items = "document.querySelectorAll(\(JSON.string(Self.items(transport, type))))"
    return try evaluate("[...\(items)].map((item) => item.textContent)").array?.compactMap(\.string) ?? []
  }

  func wait(_ transport: String, shows count: Int, of type: String) throws {
    let items = "document.querySelectorAll(\(JSON.string(Self.items(transport, type))))"
    try wait("\(count) × \(type) by \(transport)", until: "\(items).length === \(count)")
  }

  private static func items(_ transport: String, _ type: String?) -> String {
    "#\(transport)-events li" + (type.map { "[data-type=\"\($0)\"]" } ?? "")
  }

  func wait(_ what: String, until expression: String) throws {
    try browser.page.wait(what, until: expression)
  }

  @discardableResult
  func evaluate(_ expression: String) throws -> JSON { try browser.page.evaluate(expression) }

  func photograph(_ name: String) throws { try browser.photograph(name) }
}
