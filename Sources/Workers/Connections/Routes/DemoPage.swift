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
