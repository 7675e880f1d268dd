// Pages that make the calls of RIG 3's example pages: the same paths, queries, headers, tokens and handlers, in the same order
// (Accenture/reactive-interaction-gateway, folder examples). Each is named after the one whose calls it makes.
//
//   sse, ws      connect ── rig.connection.create ──► PUT subscriptions ── rig.subscriptions_set ──► the form can be used
//   longpolling  GET ──► PUT, where the token is kept already ──► GET … ── rig.connection.create ──► PUT … GET …
//
// What comes of a page stands in it: events in #events, and what else it has done and been told in #log.

import Testing

struct ExamplePage: CustomTestStringConvertible, Sendable {
  /// How the page gets its subscriptions.
  enum Subscribing: Sendable {
    /// By a PUT of this list, with a token as bearer.
    case put(String, bearer: String? = nil)
    /// By this list in the query of its connection.
    case query(String)
    /// By the claims of a token in the query of its connection.
    case token(String)
    /// By the claims of a token that the page makes itself for this user; with a list, by a PUT with that token too.
    case ownToken(user: String, put: String? = nil)
  }

  let name: String
  let transport: EventTransport
  /// The events that it sends and shows.
  let type: String
  let subscribing: Subscribing
  /// The names in the data of the events that it shows; nil: it shows all, and their data is a text.
  var names: [String]?
  /// Subscriptions that it has in the end.
  var subscriptions = 1
  var contentType = "application/json; charset=utf-8"
  /// The transport in the path of its PUT, where that isn't its own.
  var alias: String?
  /// It has a form that sends events.
  var sends = true
  /// It asks for a token before it connects, which RIG 3.0 doesn't give.
  var asksForToken = false
  /// It PUTs subscriptions before it knows its token.
  var isHasty = false
  /// It polls by the clock, not after an answer.
  var pollsByTheClock = false
  var settings: [String: String] = [:]

  var testDescription: String { name }

  static let secret = "secret"

  func shows(_ name: String) -> Bool { names?.contains(name) ?? true }

  /// The data of its events.
  func data(_ name: String, _ greeting: String) -> JSON {
    names == nil ? .string(greeting) : ["name": .string(name), "greeting": .string(greeting)]
  }

  /// How often the gateway refuses one of its calls.
  var refusals: Int { (isHasty ? 1 : 0) + (asksForToken ? 1 : 0) }

  /// What is shown of a page, for a gateway whose inbound port is `port`.
  func html(port: Int) -> String {
    """
    <!DOCTYPE html>
    <html lang="en">
    <head><meta charset="utf-8"><title>\(name)</title><link rel="icon" href="data:,"></head>
    <body>
    <form><input id="name"><input id="greeting"><button disabled>Send</button></form>
    <ul id="events"></ul>
    <ol id="log"></ol>
    <script>
    const page = \(configuration(port));
    \(Self.script)
    </script>
    </body>
    </html>
    """
  }

  private func configuration(_ port: Int) -> JSON {
    var query = ""
    var put: String?
    var bearer: String?
    var user: String?
    switch subscribing {
    case .put(let list, let token): (put, bearer) = (list, token)
    case .query(let list): query = "?subscriptions=\(list)"
    case .token(let token): query = "?jwt=\(token)"
    case .ownToken(let name, let list): (user, put) = (name, list)
    }
    func optional(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }
    return [
      "authority": .string("localhost:\(port)"), "transport": .string(transport.rawValue),
      "alias": .string(alias ?? transport.rawValue), "type": .string(type), "query": .string(query),
      "put": optional(put), "bearer": optional(bearer), "user": optional(user),
      "secret": .string(Self.secret), "contentType": .string(contentType), "hasNames": .bool(names != nil),
      "asksForToken": .bool(asksForToken), "isHasty": .bool(isHasty),
      "pollsByTheClock": .bool(pollsByTheClock),
    ]
  }

  private static let script = #"""
    const base = `http://${page.authority}/_rig/v1`;
    const form = document.querySelector("form");
    // RIG's pages poll every 10 s, and one of them every second.
    const pause = 100;

    function add(list, text) {
      const item = document.createElement("li");
      item.textContent = text;
      document.getElementById(list).append(item);
    }
    const note = (text) => add("log", text);
    const show = ({ eventTime, data }) => {
      if (Number.isNaN(Date.parse(eventTime))) note(`no time: ${eventTime}`);
      add("events", JSON.stringify(data));
    };

    function send(data) {
      return fetch(`${base}/events`, {
        method: "POST",
        mode: "cors",
        headers: { "Content-Type": page.contentType },
        body: JSON.stringify({
          cloudEventsVersion: "0.1",
          eventID: crypto.randomUUID(),
          eventType: page.type,
          eventTime: new Date().toISOString(),
          source: "example-page",
          contentType: "text/plain",
          data,
        }),
      })
        .then((answer) => answer.json())
        .then((event) => note(`sent ${event.eventType}`))
        .catch((error) => note(`not sent: ${error}`));
    }
    form.onsubmit = () => {
      const [name, greeting] = ["name", "greeting"].map((id) => document.getElementById(id).value);
      send(page.hasNames ? { name, greeting } : greeting);
      return false;
    };

    function subscribe(token) {
      const headers = { "Content-Type": "application/json; charset=utf-8" };
      if (page.bearer) headers.Authorization = `Bearer ${page.bearer}`;
      return fetch(`${base}/connection/${page.alias}/${token}/subscriptions`, {
        method: "PUT",
        mode: "cors",
        headers,
        body: `{"subscriptions":${page.put}}`,
      })
        .then((answer) => note(`put ${answer.status}`))
        .catch((error) => note(`not put: ${error}`));
    }

    const enable = () => (form.querySelector("button").disabled = false);
    function told(event) {
      enable();
      note(`subscriptions ${event.data.length}`);
    }
    function created(event) {
      const token = event.data.connection_token;
      localStorage.setItem("connection_token", token);
      if (page.put) subscribe(token);
    }

    const transports = {
      sse() {
        const source = new EventSource(`${base}/connection/sse${page.query}`);
        source.onerror = () => note("error");
        source.addEventListener("rig.connection.create", ({ data }) => created(JSON.parse(data)));
        source.addEventListener("rig.subscriptions_set", ({ data }) => told(JSON.parse(data)));
        source.addEventListener(page.type, ({ data }) => show(JSON.parse(data)));
      },

      ws() {
        const socket = new WebSocket(`ws://${page.authority}/_rig/v1/connection/ws${page.query}`);
        socket.onerror = () => note("error");
        socket.onmessage = ({ data }) => {
          const event = JSON.parse(data);
          if (event.type === "rig.connection.create") created(event);
          else if (event.eventType === page.type) show(event);
          else if (event.type === "rig.subscriptions_set") told(event);
        };
      },

      // By XMLHttpRequest, as axios does it.
      async longpolling() {
        const poll = (query) =>
          new Promise((resolve, reject) => {
            const request = new XMLHttpRequest();
            request.open("GET", `${base}/connection/longpolling${query}`);
            request.withCredentials = true;
            request.setRequestHeader("Accept", "application/json, text/plain, */*");
            request.onload = () =>
              request.status === 200 ? resolve(JSON.parse(request.responseText)) : reject(request.status);
            request.onerror = () => reject("failed");
            request.send();
          });
        const take = ({ events }) =>
          events.forEach((event) => {
            if (event.type === "rig.connection.create") created(event);
            else if (event.type === "rig.subscriptions_set") told(event);
            else show(event);
          });

        await poll(page.query);
        if (page.pollsByTheClock) return setInterval(() => poll("").then(take), pause);
        const token = localStorage.getItem("connection_token");
        if (page.put && (token || page.isHasty)) await subscribe(token);
        enable();
        for (;;) {
          take(await poll(""));
          await new Promise((resolve) => setTimeout(resolve, pause));
        }
      },
    };

    async function ownToken(user) {
      const utf8 = (text) => new TextEncoder().encode(text);
      const base64 = (bytes) =>
        btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
      const now = Math.floor(Date.now() / 1000);
      const signed = [{ alg: "HS256", typ: "JWT" }, { username: user, iat: now, exp: now + 3600 }]
        .map((part) => base64(utf8(JSON.stringify(part))))
        .join(".");
      const algorithm = { name: "HMAC", hash: "SHA-256" };
      const key = await crypto.subtle.importKey("raw", utf8(page.secret), algorithm, false, ["sign"]);
      const signature = await crypto.subtle.sign("HMAC", key, utf8(signed));
      return `${signed}.${base64(new Uint8Array(signature))}`;
    }

    (async () => {
      if (page.user) {
        page.bearer = await ownToken(page.user);
        page.query = `?jwt=${page.bearer}`;
      }
      if (page.asksForToken) {
        const answer = await fetch(`${base}/connection/init`, { method: "GET", mode: "cors" });
        const token = await answer.text();
        page.query = answer.status === 200 ? `?connection_token=${token}` : "";
      }
      await transports[page.transport]();
    })().catch((error) => note(`stopped: ${error}`));
    """#
}

extension ExamplePage {
  static let all: [ExamplePage] = EventTransport.allCases.flatMap(ofOneTransport) + channels + [byTheClock]

  private static let constrained = #"[{"eventType":"greeting","oneOf":[{"name":"john"}]}]"#

  private static let extractors = [
    "EXTRACTORS": """
    {"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}}},\
    "greeting.jwt":{"name":{"stable_field_index":1,"jwt":{"json_pointer":"/username"},\
    "event":{"json_pointer":"/data/name"}}}}
    """,
    "JWT_SECRET_KEY": secret,
  ]

  /// Claims as RIG's pages have them: issued in the year 2100, when they expire.
  private static func token(_ names: String) -> String {
    TestToken.make(
      #"{"sub":"1234567890",\#(names),"iat":4103258143,"exp":4103258143}"#, secret: secret)
  }

  static let john = token(#""fullname":"John Doe","username":"john.doe""#)

  private static func ofOneTransport(_ transport: EventTransport) -> [ExamplePage] {
    let prefix = transport == .longPolling ? "lp" : transport.rawValue
    let cloudEvents = "application/cloudevents+json; charset=utf-8"
    let simple = Subscriptions.to("greeting.simple")
    var pages = [
      ExamplePage(
        name: "\(prefix)-1-demo", transport: transport, type: "greeting.simple",
        subscribing: .put(simple), contentType: cloudEvents,
        alias: transport == .longPolling ? "sse" : nil, isHasty: transport == .longPolling),
      ExamplePage(
        name: "\(prefix)-2-demo-simple-extractors", transport: transport, type: "greeting",
        subscribing: transport == .longPolling ? .query(constrained) : .put(constrained), names: ["john"],
        settings: extractors),
      ExamplePage(
        name: "\(prefix)-3-demo-jwt", transport: transport, type: "greeting.simple",
        subscribing: .put(simple, bearer: token(#""name":"John Doe""#)), contentType: cloudEvents,
        settings: ["SUBSCRIPTION_CHECK": "jwt_validation", "JWT_SECRET_KEY": secret]),
      ExamplePage(
        name: "\(prefix)-demo-jwt-extractors", transport: transport, type: "greeting.jwt",
        subscribing: .put(#"[{"eventType":"greeting.jwt","oneOf":[{"name":"john"}]}]"#, bearer: john),
        names: ["john", "john.doe"], subscriptions: 2, settings: extractors),
      ExamplePage(
        name: "\(prefix)-demo-jwt-extractors-conn", transport: transport, type: "greeting.jwt",
        subscribing: .token(john), names: ["john.doe"], settings: extractors),
      ExamplePage(
        name: "\(prefix)-demo-single-call", transport: transport, type: "greeting.simple",
        subscribing: .query(simple), contentType: cloudEvents),
    ]
    if transport != .longPolling {
      pages.append(
        ExamplePage(
          name: "\(prefix)-4-demo-connection-init", transport: transport, type: "greeting.simple",
          subscribing: .put(simple), contentType: cloudEvents, asksForToken: true))
    }
    return pages
  }

  private static let channelExtractors = [
    "EXTRACTORS": """
    {"message":{"name":{"stable_field_index":1,"jwt":{"json_pointer":"/username"},\
    "event":{"json_pointer":"/data/name"}}}}
    """,
    "JWT_SECRET_KEY": secret,
  ]

  /// What the frontend of the channels example does: once for what its token stands for, once for an event type as well.
  private static let channels = [
    ExamplePage(
      name: "channels-example by SSE", transport: .sse, type: "message", subscribing: .ownToken(user: "mary"),
      names: ["mary"], sends: false, settings: channelExtractors),
    ExamplePage(
      name: "channels-example by WebSocket", transport: .webSocket, type: "chat",
      subscribing: .ownToken(user: "mary", put: Subscriptions.to("chat")), subscriptions: 2,
      sends: false, settings: channelExtractors),
  ]

  private static let byTheClock = ExamplePage(
    name: "lp/index", transport: .longPolling, type: "greeting.simple",
    subscribing: .query(Subscriptions.to("greeting.simple")),
    contentType: "application/cloudevents+json; charset=utf-8", pollsByTheClock: true)
}
