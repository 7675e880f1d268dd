// Headless Chromium with one page, for one test: a profile of its own, gone with it, and nothing said to anybody but
// the page's server.

import Foundation

final class Browser {
  let page: DevTools
  private let process: ChildProcess

  private static let executable = "chromium"
  /// Written into the profile by the browser: the port, then the path of its own DevTools address.
  private static let portFile = "DevToolsActivePort"
  private static let switches = [
    "--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-breakpad",
    "--no-default-browser-check", "--mute-audio", "--hide-scrollbars",
  ]

  /// Why no browser can be tested with; nil if one can.
  static var absence: String? {
    if ProcessInfo.processInfo.environment["RIG_TEST_WITHOUT_BROWSER"] != nil {
      return "RIG_TEST_WITHOUT_BROWSER is set"
    }
    return (try? Tools.system(executable)) == nil ? "\(executable) isn't installed" : nil
  }

  private init(directory: String) throws {
    let profile = "\(directory)/profile"
    process = try ChildProcess(
      Tools.system(Self.executable), Self.switches + ["--user-data-dir=\(profile)", "about:blank"],
      environment: ["XDG_CONFIG_HOME": directory, "XDG_CACHE_HOME": directory], directory: directory)
    do {
      page = try Self.connect(process, profile)
      for domain in ["Page", "Runtime", "Log", "Network"] { try page.call("\(domain).enable") }
    } catch {
      try? process.killTree()
      throw error
    }
  }

  private static func connect(_ process: ChildProcess, _ profile: String) throws -> DevTools {
    let port = try eventually("the browser listens") { () -> Int? in
      if let ending = process.endingIfEnded() { throw TestFailure("the browser ended: \(ending)") }
      let text = try? String(contentsOfFile: "\(profile)/\(portFile)", encoding: .utf8)
      guard let lines = text?.split(separator: "\n"), lines.count == 2 else { return nil }
      return Int(lines[0])
    }
    let path = try eventually("the browser has a page") { () -> String? in
      let targets = try HTTP.send("GET", "/json/list", port: port).json.array ?? []
      let page = targets.first { $0["type"] == "page" }
      return page?["webSocketDebuggerUrl"]?.string.flatMap(URL.init)?.path
    }
    return try DevTools(port: port, path: path)
  }

  /// Runs `body` with a browser, then ends it and removes everything of it.
  static func run(_ body: (Browser) throws -> Void) throws {
    let directory = try TestDirectory()
    let browser = try Browser(directory: directory.path)
    do {
      try body(browser)
    } catch {
      try? browser.process.killTree()
      throw TestFailure("\(error)\nthe page's events: \(browser.page.events.suffix(20))")
    }
    try browser.page.call("Browser.close")
    _ = try browser.process.wait()
    try browser.process.killTree()
  }

  func open(_ address: String) throws {
    try page.call("Page.navigate", ["url": .string(address)])
    try page.wait(
      "it is loaded", until: "document.readyState === 'complete' && location.href !== 'about:blank'")
  }

  /// Errors and warnings of the page's scripts, and what the browser itself found wrong with it.
  var complaints: [String] {
    let exceptions = page.all("Runtime.exceptionThrown").map(\.description)
    let logged = page.all("Log.entryAdded").compactMap { $0["entry"] }
    let printed = page.all("Runtime.consoleAPICalled")
    return exceptions + logged.filter { $0["level"] != "verbose" && $0["level"] != "info" }.map(\.description)
      + printed.filter { $0["type"] == "error" || $0["type"] == "warning" }.map(\.description)
  }

  /// The addresses of everything that the page has asked for, WebSockets included.
  var requests: [String] {
    page.all("Network.requestWillBeSent").compactMap { $0["request"]?["url"]?.string }
      + page.all("Network.webSocketCreated").compactMap { $0["url"]?.string }
  }

  /// How the page is shown from here on.
  func show(width: Int, height: Int, isDark: Bool) throws {
    try page.call(
      "Emulation.setDeviceMetricsOverride",
      [
        "width": .number(Double(width)), "height": .number(Double(height)), "deviceScaleFactor": 1,
        "mobile": false,
      ])
    let scheme: JSON = isDark ? "dark" : "light"
    try page.call(
      "Emulation.setEmulatedMedia", ["features": [["name": "prefers-color-scheme", "value": scheme]]])
  }

  /// The page as a picture; for a person to look at, in the directory RIG_TEST_SCREENSHOTS if that is set.
  func photograph(_ name: String) throws {
    guard let folder = ProcessInfo.processInfo.environment["RIG_TEST_SCREENSHOTS"] else { return }
    let answer = try page.call("Page.captureScreenshot", ["format": "png"])
    guard let picture = answer["data"]?.string.flatMap({ Data(base64Encoded: $0) }) else {
      throw TestFailure("no picture: \(answer)")
    }
    try picture.write(to: URL(fileURLWithPath: "\(folder)/\(name).png"))
  }
}
