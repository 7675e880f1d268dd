// What real User-Agent fields say.

import Testing

@testable import Control

@Suite struct UserAgentTests {
  @Test(
    "Devices, systems and browsers are told apart",
    arguments: [
      (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "desktop Windows Chrome 126.0.0.0"
      ),
      (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36 Edg/125.0.2535.67",
        "desktop Windows Edge 125.0.2535.67"
      ),
      (
        "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
        "desktop Linux Firefox 127.0"
      ),
      (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4.1 Safari/605.1.15",
        "desktop macOS Safari 17.4.1"
      ),
      (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
        "mobile iOS Safari 17.5"
      ),
      (
        "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/124.0.6367.88 Mobile/15E148 Safari/604.1",
        "tablet iOS Chrome 124.0.6367.88"
      ),
      (
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.6422.113 Mobile Safari/537.36",
        "mobile Android Chrome 125.0.6422.113"
      ),
      (
        "Mozilla/5.0 (Linux; Android 13; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
        "tablet Android Chrome 124.0.0.0"
      ),
      (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36 OPR/110.0.0.0",
        "desktop Linux Opera 110.0.0.0"
      ),
      ("Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18", "desktop Windows Opera 12.18"),
      ("curl/8.5.0", "unknown unknown curl 8.5.0"),
      (
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot unknown unknown "
      ),
      ("", "unknown unknown unknown "), ("\u{1f600}Chrome/", "unknown unknown Chrome "),
    ])
  func known(_ text: String, _ expected: String) {
    let agent = UserAgent(text)
    #expect("\(agent.device) \(agent.os) \(agent.browser) \(agent.browserVersion)" == expected)
  }
}
