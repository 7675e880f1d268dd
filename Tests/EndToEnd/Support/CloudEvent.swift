// CloudEvents for tests.

enum CloudEvent {
  static let contentType = ("content-type", "application/cloudevents+json")

  /// A structured event. `extra`: further members as JSON text, `"a":1,"b":2`.
  static func json(_ type: String, id: String = "1", data: String = "null", extra: String = "") -> String {
    let more = extra.isEmpty ? "" : ",\(extra)"
    return #"{"specversion":"1.0","type":"\#(type)","source":"/test","id":"\#(id)","data":\#(data)\#(more)}"#
  }
}

enum Subscriptions {
  /// A subscription list without constraints.
  static func to(_ types: String...) -> String {
    "[" + types.map { #"{"eventType":"\#($0)"}"# }.joined(separator: ",") + "]"
  }
}
