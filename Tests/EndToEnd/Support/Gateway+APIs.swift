// API definitions that several tests make.

struct TestAPI {
  var id = "books"
  var port: Int
  /// The service without its port.
  var target = "http://127.0.0.1"
  /// Members of the only endpoint besides its id, as JSON text.
  var endpoint = #""method":"GET","path_regex":"/books/([^/]+)","path_replacement":"/v1/\\1""#
  /// Further members of the definition, as JSON text.
  var more = #""auth_type":"none""#
  /// Of the version, before its endpoints.
  var version = ""

  var json: String {
    let version = version.isEmpty ? "" : "\(version),"
    return #"{"id":"\#(id)","name":"\#(id)",\#(more),"version_data":{"default":{\#(version)"endpoints":["#
      + #"{"id":"only",\#(endpoint)}]}},"proxy":{"use_env":false,"target_url":"\#(target)","port":\#(port)}}"#
  }
}

extension Gateway {
  func define(_ api: TestAPI) throws {
    let answer = try manageAPIs("POST", "/v3/apis", api.json)
    guard answer.status == 201 else { throw TestFailure("not defined: \(answer.status) \(answer.text)") }
  }

  func manageAPIs(_ method: String, _ path: String, _ body: String? = nil) throws -> HTTPAnswer {
    try management(
      method, path, headers: body == nil ? [] : [("content-type", "application/json")], body: body)
  }
}
