// What a client sends in one read may cost the worker seconds: nobody else waits for it.

import Foundation
import Testing

@Suite("14.C14 Costly requests at once", .serialized)
struct InputTurnTests {
  private static let requests = 30
  /// Patterns without a beginning of their own are tried with every path.
  private static let definition: String = {
    let endpoints = (0..<10).map {
      #"{"id":"e\#($0)","method":"GET","path_regex":"/([^/]+)/x\#($0)/(.*)"}"#
    }
    return #"""
      {"id":"s","name":"s","auth_type":"none","proxy":{"use_env":false,"target_url":"http://localhost","port":1},
      "version_data":{"default":{"endpoints":[\#(endpoints.joined(separator: ","))]}}}
      """#
  }()

  /// A path that is long is sent once, and then named by its place in the table of RFC 7541 §2.3.2: four bytes a request.
  private static func heads() -> [UInt8] {
    let path = [UInt8](repeating: UInt8(ascii: "a"), count: 3_899)
    var first: [UInt8] = [0x82, 0x86, 0x41, 1, UInt8(ascii: "x"), 0x44]
    let rest = path.count + 1 - 127
    first += [0x7f, UInt8(rest & 0x7f | 0x80), UInt8(rest >> 7), UInt8(ascii: "/")] + path
    let later: [UInt8] = [0x82, 0x86, 0xbf, 0xbe]
    return (0..<requests).flatMap { index in
      let flags = HTTP2Frame.endHeaders | HTTP2Frame.endStream
      return HTTP2Frame(.headers, flags, 2 * index + 1, index == 0 ? first : later).encoded
    }
  }

  @Test("14.C14 Requests that are small and costly, all in one read, are shared out over many turns")
  func oneRead() throws {
    let settings = Gateway.turnsUnderLoad.merging(["CONNECTION_WORKERS": "1"]) { $1 }
    try Gateway.run(settings) { gateway in
      let answer = try gateway.management(
        "POST", "/v3/apis", headers: [("content-type", "application/json")], body: Self.definition)
      try #require(answer.status == 201, "\(answer.text)")
      let wire = try Wire(port: gateway.inboundPort)
      try wire.send(HTTP2Frame.preface + HTTP2Frame(.settings).encoded + Self.heads())
      var ended: Set<Int> = []
      while ended.count < Self.requests {
        let frame = try wire.receive("answers") { HTTP2Frame(takenFrom: &$0) }
        try #require(frame.kind != .goAway && frame.kind != .reset)
        if frame.isEnd { ended.insert(frame.stream) }
      }
      // That no turn was too long is seen by whoever runs the gateway.
    }
  }
}
