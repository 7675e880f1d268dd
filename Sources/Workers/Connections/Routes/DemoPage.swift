// The page at /_rig/demo (only with --dev): shows events as they come by EventSource and by WebSocket, and publishes.
//
// Its content security policy allows exactly its own style and script, by hash, and connections to where it came from:
// no other resource, no frame, no form target.

import COpenSSL
import Foundation
import HTTP
import NIOCore
import NIOHTTP1

struct DemoPage {
  /// The page as one HTML document.
  let html: String
  /// Value of `content-security-policy`.
  let policy: String

  init() {
    html = """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width, initial-scale=1">
      <title>\(DemoPageText.title)</title>
      <link rel="icon" href="data:,">
      <style>\(DemoPageText.style)</style>
      </head>
      <body>
      \(DemoPageText.body)
      <script>\(DemoPageText.script)</script>
      </body>
      </html>

      """
    policy = [
      "default-src 'none'", "img-src data:", "connect-src 'self'",
      "style-src '\(Self.hash(DemoPageText.style))'", "script-src '\(Self.hash(DemoPageText.script))'",
      "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ].joined(separator: "; ")
  }

  /// The answer to a GET.
  var response: HTTPResponse {
    var response = HTTPResponse.text(html, contentType: "text/html; charset=utf-8")
    response.headers.add(name: "content-security-policy", value: policy)
    response.headers.add(name: "x-content-type-options", value: "nosniff")
    response.headers.add(name: "referrer-policy", value: "no-referrer")
    response.headers.add(name: "cache-control", value: "no-cache")
    return response
  }

  /// A source expression of CSP 3 §2.3.1 for the text of an element.
  private static func hash(_ text: String) -> String {
    var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    let bytes = Array(text.utf8)
    SHA256(bytes, bytes.count, &digest)
    return "sha256-" + Data(digest).base64EncodedString()
  }
}

/// Text of the demo page. Everything it needs is in these three strings: it loads nothing from anywhere, and builds what
/// it shows with `textContent`, so that no event can put markup into it. Colours follow the system's light or dark mode.
private enum DemoPageText {
  static let title = "RIG demo"

  static let style = """
    :root {
      color-scheme: light dark;
      --page: light-dark(#f6f7f9, #14171c);
      --card: light-dark(#ffffff, #1d2229);
      --line: light-dark(#d5dae1, #343b46);
      --text: light-dark(#16202c, #e6eaf0);
      --quiet: light-dark(#536171, #9daaba);
      --accent: light-dark(#0b5cad, #6cb2ff);
      --good: light-dark(#17693a, #66d394);
      --bad: light-dark(#a5231f, #ff9089);
    }
    * { box-sizing: border-box; }
    body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
    header, main { max-width: 72rem; margin: 0 auto; padding: 1rem 1.25rem; }
    header { padding-bottom: 0; }
    h1 { margin: 0; font-size: 1.5rem; }
    h2 { margin: 0; font-size: 1.1rem; }
    p { margin: .25rem 0; color: var(--quiet); }
    form p { font-size: .9rem; }
    form, section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; }
    .columns { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
    .columns + .columns { margin-top: 1rem; }
    .top { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
    label { display: block; margin-top: .75rem; font-weight: 600; }
    input, textarea { width: 100%; padding: .45rem .6rem; border: 1px solid var(--line); border-radius: .35rem;
      background: var(--page); color: inherit; font: .95rem/1.4 ui-monospace, monospace; }
    ::placeholder { color: var(--quiet); opacity: 1; }
    button { margin-top: .75rem; padding: .45rem 1rem; border: 1px solid var(--accent); border-radius: .35rem;
      background: var(--accent); color: var(--card); font: inherit; font-weight: 600; cursor: pointer; }
    button.plain { margin: 0 0 0 auto; padding: .15rem .6rem; background: none; color: var(--accent); font-size: .9rem; }
    :focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
    output { display: block; min-height: 1.5rem; margin-top: .5rem; color: var(--quiet); }
    [data-state="open"], [data-state="done"] { color: var(--good); }
    [data-state="closed"], [data-state="failed"] { color: var(--bad); }
    ol { list-style: none; margin: .75rem 0 0; padding: 0; max-height: 26rem; overflow: auto; }
    li { padding: .5rem 0; border-top: 1px solid var(--line); }
    li strong { color: var(--accent); }
    li.own strong { color: var(--quiet); }
    li time { float: right; color: var(--quiet); font-size: .85rem; }
    pre { clear: both; margin: .25rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.45 ui-monospace, monospace; }
    """

  static let body = """
    <header>
      <h1>RIG demo</h1>
      <p>Events reach this page by Server-Sent Events and by WebSocket as they come. Publish one here, or from a shell
        or a Kafka topic.</p>
    </header>
    <main>
      <div class="columns">
        <form id="subscribe">
          <h2>Subscribe</h2>
          <label for="types">Event types, separated by commas</label>
          <input id="types" value="greeting" autocomplete="off" spellcheck="false" aria-describedby="types-hint" required>
          <p id="types-hint">A pattern like com.example.* shows by WebSocket only: an EventSource hears of the types that it
            knows by name.</p>
          <label for="constraints">Constraints (JSON list, may be empty)</label>
          <input id="constraints" placeholder='[{"name":"John"}]' autocomplete="off" spellcheck="false">
          <button type="submit">Set subscriptions</button>
          <output id="subscribed" for="types constraints"></output>
        </form>
        <form id="publish">
          <h2>Publish</h2>
          <label for="type">Event type</label>
          <input id="type" value="greeting" autocomplete="off" spellcheck="false" required>
          <label for="data">Data (JSON)</label>
          <textarea id="data" rows="2" spellcheck="false">{"name":"John","message":"Hello"}</textarea>
          <button type="submit">Publish event</button>
          <output id="published" for="type data"></output>
        </form>
      </div>
      <div class="columns">
        <section aria-labelledby="sse-title">
          <div class="top"><h2 id="sse-title">Server-Sent Events</h2><span id="sse-state" role="status">connecting</span>
            <button class="plain" type="button" data-clear="sse">Clear</button></div>
          <ol id="sse-events" role="log" aria-label="Events by Server-Sent Events" tabindex="0"></ol>
        </section>
        <section aria-labelledby="ws-title">
          <div class="top"><h2 id="ws-title">WebSocket</h2><span id="ws-state" role="status">connecting</span>
            <button class="plain" type="button" data-clear="ws">Clear</button></div>
          <ol id="ws-events" role="log" aria-label="Events by WebSocket" tabindex="0"></ol>
        </section>
      </div>
    </main>
    """

  static let script = """
    "use strict";
    const byId = (id) => document.getElementById(id);
    const ownTypes = ["rig.connection.create", "rig.subscriptions_set", "rig.events_lost", "rig.server_closing",
      "rig.session_killed"];
    const reconnectDelayMs = 2000;
    const maximumShown = 200;
    const listened = new Set();
    let token = { sse: null, ws: null };
    let seen = { sse: null, ws: null };
    let events, socket;
    // The subscriptions in force, which a new connection opens with: what stands in the form may not have been set yet.
    let inForce;

    function say(id, state, text) {
      byId(id).dataset.state = state;
      byId(id).textContent = text;
    }

    function subscriptionsOfForm() {
      const text = byId("constraints").value.trim();
      const oneOf = text ? JSON.parse(text) : [];
      const types = byId("types").value.split(",").map((type) => type.trim()).filter(Boolean);
      return types.map((eventType) => ({ eventType, oneOf }));
    }

    function show(transport, json) {
      let event;
      try { event = JSON.parse(json); } catch { event = { type: "not JSON", data: json }; }
      const type = event.type ?? "message";
      if (type === "rig.connection.create") token[transport] = event.data.connection_token;
      if (event.rigcursor) seen.ws = event.rigcursor;
      if (type === "rig.cursor") return;
      const item = document.createElement("li");
      item.dataset.type = type;
      if (type.startsWith("rig.")) item.className = "own";
      const name = item.appendChild(document.createElement("strong"));
      name.textContent = type;
      const time = item.appendChild(document.createElement("time"));
      time.textContent = new Date().toLocaleTimeString();
      item.appendChild(document.createElement("pre")).textContent = JSON.stringify(event.data ?? event, null, 1);
      const list = byId(transport + "-events");
      list.prepend(item);
      while (list.children.length > maximumShown) list.lastChild.remove();
    }

    // An EventSource tells only of events whose names it was asked for.
    function listen(types) {
      for (const type of types) {
        if (listened.has(type)) continue;
        listened.add(type);
        events.addEventListener(type, (event) => {
          if (event.lastEventId) seen.sse = event.lastEventId;
          show("sse", event.data);
        });
      }
    }

    // Empty at first: a WebSocket then tells of the place behind each event, to go on from.
    function address(path, lastEventId) {
      return path + "?" + new URLSearchParams({ subscriptions: JSON.stringify(inForce), lastEventId: lastEventId ?? "" });
    }

    // An EventSource reconnects by itself, but to the address it began with: a new one has today's subscriptions.
    function openEventSource() {
      listened.clear();
      events = new EventSource(address("/_rig/v1/connection/sse", seen.sse));
      events.onopen = () => say("sse-state", "open", "connected");
      events.onerror = () => {
        events.close();
        say("sse-state", "closed", "reconnecting");
        setTimeout(openEventSource, reconnectDelayMs);
      };
      listen(["message", ...ownTypes, ...inForce.map((subscription) => subscription.eventType)]);
    }

    function openWebSocket() {
      const scheme = location.protocol === "https:" ? "wss://" : "ws://";
      socket = new WebSocket(scheme + location.host + address("/_rig/v1/connection/ws", seen.ws));
      socket.onopen = () => say("ws-state", "open", "connected");
      socket.onmessage = (message) => show("ws", message.data);
      socket.onclose = (event) => {
        say("ws-state", "closed", "reconnecting" + (event.reason ? " (" + event.reason + ")" : ""));
        setTimeout(openWebSocket, reconnectDelayMs);
      };
    }

    async function send(method, path, type, body) {
      const answer = await fetch(path, { method, headers: { "content-type": type }, body: JSON.stringify(body) });
      if (answer.ok) return;
      const problem = await answer.json();
      throw new Error(problem.status + ": " + problem.detail);
    }

    byId("subscribe").addEventListener("submit", async (submit) => {
      submit.preventDefault();
      try {
        const wanted = subscriptionsOfForm();
        listen(wanted.map((subscription) => subscription.eventType));
        for (const transport of ["sse", "ws"]) {
          const path = "/_rig/v1/connection/" + transport + "/" + token[transport] + "/subscriptions";
          await send("PUT", path, "application/json", { subscriptions: wanted });
        }
        inForce = wanted;
        say("subscribed", "done", "set");
      } catch (error) {
        say("subscribed", "failed", error.message);
      }
    });

    byId("publish").addEventListener("submit", async (submit) => {
      submit.preventDefault();
      try {
        const event = { specversion: "1.0", type: byId("type").value, source: "/demo", id: crypto.randomUUID
          ? crypto.randomUUID() : String(Math.random()).slice(2), data: JSON.parse(byId("data").value) };
        await send("POST", "/_rig/v1/events", "application/cloudevents+json", event);
        say("published", "done", "accepted");
      } catch (error) {
        say("published", "failed", error.message);
      }
    });

    for (const button of document.querySelectorAll("[data-clear]")) {
      button.addEventListener("click", () => byId(button.dataset.clear + "-events").replaceChildren());
    }
    inForce = subscriptionsOfForm();
    openEventSource();
    openWebSocket();
    """
}
