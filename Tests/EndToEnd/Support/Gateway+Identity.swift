// Requests about sessions and users that several tests make.

extension Gateway {
  func blacklist(_ session: String, seconds: Int = 60) throws -> HTTPAnswer {
    try management(
      "POST", "/v3/session-blacklist", headers: [("content-type", "application/json")],
      body: #"{"sessionId":"\#(session)","validityInSeconds":\#(seconds)}"#)
  }

  /// How the token is answered by each connection worker.
  func statuses(of token: String) throws -> Set<Int> {
    func wire(_ client: SSEClient) -> Wire { client.wire }
    let answered = try onePerWorker(wire) { try SSEClient(self, query: "jwt=\(token)") }
    return Set(answered.map(\.1.head.status))
  }

  /// What `GET /v3/sessions…` lists, once it is `count` long: presence follows what happens with a small delay.
  func listed(_ path: String, count: Int) throws -> [JSON] {
    try eventually("\(path) lists \(count)") {
      let answer = try management("GET", path)
      guard [200, 404].contains(answer.status) else { return nil }
      let list = answer.status == 404 ? [] : try answer.json.array
      return list?.count == count ? list : nil
    }
  }

  /// The connection's subscriptions are replaced, with fresh tokens.
  func show(
    _ tokens: String..., of connection: String, subscriptions: String = "[]"
  ) throws -> HTTPAnswer {
    try inbound(
      "PUT", "/_rig/v1/connection/sse/\(connection)/subscriptions",
      headers: [("content-type", "application/json")] + tokens.map { TestToken.bearer($0) },
      body: #"{"subscriptions":\#(subscriptions)}"#)
  }

  /// Publishes an event that is addressed to a user.
  func publish(_ type: String, to user: String) throws {
    try publish(CloudEvent.json(type, extra: #""user":"\#(user)""#))
  }
}
