// RIG's rules and ours, and answers in RIG's shape.

import Kit
import Testing

@testable import APIs

@Suite("API validation")
struct APIValidationTests {
  private func problems(_ definition: String) throws -> String {
    text(APIValidation.problems(of: try tree(definition)).json)
  }

  @Test("a complete definition has no mistakes")
  func complete() throws {
    let definition = #"""
      {"id":"books","name":"books","auth_type":"jwt",
       "auth":{"use_header":true,"header_name":"Authorization","use_query":false,"query_name":""},
       "versioned":false,
       "version_data":{"default":{
         "transform_request_headers":{"add_headers":{"host":"h","x-a":"b"}},
         "endpoints":[{"id":"get-book","method":"GET","path_regex":"/books/([^/]+)","path_replacement":"/v1/\\1",
           "secured":true,"transform_request_headers":true,"target":"http","response_from":"http","topic":"t"}]}},
       "proxy":{"use_env":false,"target_url":"http://localhost","port":3000}}
      """#
    #expect(try problems(definition) == "{}")
    let parsed = APIDefinition(validated: try tree(definition))
    #expect(
      parsed.addHeaders.map(\.name) == ["host", "x-a"] && parsed.addHeaders.map(\.value) == ["h", "b"])
    let endpoint = try #require(parsed.endpoints.first)
    #expect(endpoint.isSecured && endpoint.transformsRequestHeaders && endpoint.topic == "t")
    #expect(endpoint.target == .http && endpoint.responseFrom == .http)
  }

  @Test("names all that is missing, in RIG's shape")
  func missing() throws {
    #expect(
      try problems(#"{"id":"a","version_data":{"default":{"endpoints":[]}}}"#)
        == #"{"api":[{"name":"must be string"},{"name":"must have a length of at least 1"},"#
        + #"{"proxy":"must be present"}]}"#)
    #expect(
      try problems("{}")
        == #"{"api":[{"id":"must be string"},{"id":"must have a length of at least 1"},"#
        + #"{"name":"must be string"},{"name":"must have a length of at least 1"},"#
        + #"{"proxy":"must be present"},{"version_data":"must be present"}]}"#)
    #expect(
      try problems(definitionText("a", endpoints: #"{"method":""}"#))
        == #"{"a/":[{"id":"must be string"},{"id":"must have a length of at least 1"},"#
        + #"{"path_regex":"must be string"},{"path_regex":"must have a length of at least 1"},"#
        + #"{"method":"must have a length of at least 1"}]}"#)
    #expect(try problems("[]") == #"{"api":[{"body":"must be object"}]}"#)
  }

  @Test(
    "names what is wrong with the top",
    arguments: [
      (#""id":7"#, #"{"id":"must be string"}"#),
      (#""name":"""#, #"{"name":"must have a length of at least 1"}"#),
      (
        #""proxy":{}"#,
        #"{"proxy":"must be present"},{"target_url":"must be string"},"#
          + #"{"target_url":"must have a length of at least 1"},{"port":"must be integer"}"#
      ), (#""proxy":7"#, #"{"proxy":"must be object"}"#),
      (
        #""proxy":{"port":1}"#,
        #"{"target_url":"must be string"},{"target_url":"must have a length of at least 1"}"#
      ),
      (#""proxy":{"target_url":"h","port":"1"}"#, #"{"port":"must be integer"}"#),
      (#""proxy":{"target_url":"h","port":1.5}"#, #"{"port":"must be integer"}"#),
      (#""proxy":{"target_url":"h","port":0}"#, #"{"port":"must be between 1 and 65535"}"#),
      (
        #""proxy":{"target_url":"ftp://h","port":1}"#,
        #"{"target_url":"must be a host or an http or https URL"}"#
      ),
      (
        #""version_data":{}"#,
        #"{"version_data":"must be present"},{"version_data":"must have at least one version, e.g. default"}"#
      ),
      (#""version_data":7"#, #"{"version_data":"must be object"}"#),
      (#""version_data":{"v1":{}}"#, #"{"endpoints":"must be list"}"#),
      (#""version_data":{"v1":7}"#, #"{"endpoints":"must be list"}"#),
      (
        #""version_data":{"v1":{"endpoints":[],"transform_request_headers":{"add_headers":{"a":"b\r\nc: d"}}}}"#,
        #"{"add_headers":"must have values without control characters, 'a' has one"}"#
      ),
      (
        #""version_data":{"v1":{"endpoints":[],"transform_request_headers":{"add_headers":{"a:":"b"}}}}"#,
        #"{"add_headers":"must have names of headers, 'a:' is none"}"#
      ),
      (
        #""version_data":{"v1":{"endpoints":[],"transform_request_headers":{"add_headers":{"a":1}}}}"#,
        #"{"add_headers":"must have strings as values, 'a' has another"}"#
      ),
      (#""active":"yes""#, #"{"active":"must be boolean"}"#),
      (#""auth_type":7"#, #"{"auth_type":"must be string"}"#),
      (#""auth_type":"basic""#, #"{"auth_type":"must be one of [\"none\", \"jwt\"]"}"#),
      (
        #""versioned":true"#,
        #"{"versioned":"must be false: an API with versions would take no requests"}"#
      ),
    ])
  func top(member: String, expected: String) throws {
    var definition = try tree(definitionText("a", endpoints: ""))
    for change in try tree("{\(member)}").members { definition.set(change.name, change.value) }
    #expect(text(APIValidation.problems(of: definition).json) == #"{"api":[\#(expected)]}"#)
  }

  @Test(
    "names what is wrong with the authentication",
    arguments: [
      (
        #""auth":{"use_header":true},"#,
        #"{"header_name":"must be present"},{"auth_type":"must be one of [\"jwt\"]"}"#
      ),
      (#""auth_type":"jwt","auth":{"use_query":true},"#, #"{"query_name":"must be present"}"#),
      (
        #""auth_type":"None","auth":{"use_query":true,"query_name":"q"},"#,
        #"{"auth_type":"must be one of [\"jwt\"]"}"#
      ),
      (#""auth":[],"#, #"{"auth":"must be object"}"#),
      (#""auth":{"use_header":1},"#, #"{"use_header":"must be boolean"}"#),
      (#""auth":{"header_name":"a b"},"#, #"{"header_name":"must be the name of a header"}"#),
      (#""auth":{"query_name":7},"#, #"{"query_name":"must be string"}"#),
    ])
  func auth(more: String, expected: String) throws {
    #expect(try problems(definitionText("a", endpoints: "", more: more)) == #"{"a":[\#(expected)]}"#)
  }

  @Test(
    "names what is wrong with an endpoint",
    arguments: [
      (#","target":"kafka""#, #"{"topic":"must be present"}"#),
      (#","target":"KAFKA","topic":" ""#, #"{"topic":"must be present"}"#),
      (#","target":"nats""#, #"{"target":"must be one of [\"http\", \"kafka\"]"}"#),
      (#","response_from":7"#, #"{"response_from":"must be one of [\"http\", \"kafka\", \"http_async\"]"}"#),
      (#","schema":"s""#, #"{"target":"must be present"}"#),
      (#","secured":true"#, #"{"auth_type":"must be one of [\"jwt\"]"}"#),
      (#","secured":1"#, #"{"secured":"must be boolean"}"#), (#","path":7"#, #"{"path":"must be string"}"#),
      (
        #","path":"/(""#,
        #"{"path":"must be a pattern that is supported: a '(' without its ')' at byte 1"}"#
      ),
      (
        #","path_replacement":"/a b""#,
        #"{"path_replacement":"must be fit for a path: a space, control character, '#' or character that isn't ASCII"#
          + #" at byte 2"}"#
      ),
    ])
  func endpoint(more: String, expected: String) throws {
    #expect(
      try problems(definitionText("a", endpoints: endpointText("e", "/e", more: more)))
        == #"{"a/e":[\#(expected)]}"#)
  }

  @Test("names patterns that don't compile, can't be supported or are too large, all at once")
  func patterns() throws {
    let endpoints =
      ["(", "/(a)\\1", "(a{999}){999}"].enumerated()
      .map { endpointText("e\($0.offset)", $0.element) } + ["7", endpointText("e4", "/x", method: "A B")]
    let answer = try problems(definitionText("a", endpoints: endpoints.joined(separator: ",")))
    #expect(answer.contains(#""a/e0":[{"path_regex":"must be a pattern that is supported: a '(' without"#))
    #expect(
      answer.contains(#""a/e1":[{"path_regex":"must be a pattern that is supported: a reference to a group"#))
    #expect(
      answer.contains(
        #""a/e2":[{"path_regex":"must be a pattern that is supported: a pattern that is too large"#))
    #expect(answer.contains(#""a/":[{"endpoint":"must be object"}]"#))
    #expect(answer.contains(#""a/e4":[{"method":"must be an HTTP method"}]"#))
  }

  @Test("the patterns of one definition together, and its endpoints, are bounded")
  func totals() throws {
    let large = (0..<60).map { endpointText("e\($0)", "/[ab]{995}[ab]{995}") }.joined(separator: ",")
    #expect(
      try problems(definitionText("a", endpoints: large)).contains("must have patterns that are smaller"))
    let many = (0...APIDefinition.maximumEndpoints).map { endpointText("e\($0)", "/") }.joined(separator: ",")
    #expect(try problems(definitionText("a", endpoints: many)).contains("must have at most 2000 elements"))
    let long = definitionText(String(repeating: "i", count: 257), endpoints: "")
    #expect(try problems(long).contains("must have at most 256 bytes"))
  }

  @Test("lists a bounded number of mistakes and counts the rest")
  func manyMistakes() throws {
    let endpoints = (0..<1_500).map { #"{"id":"e\#($0)","method":"GET"}"# }.joined(separator: ",")
    let found = APIValidation.problems(of: try tree(definitionText("a", endpoints: endpoints)))
    #expect(found.count == 3_000)
    #expect(found.json.count < 20_000)
    #expect(text(found.json).hasSuffix(#""more":[{"more":"and 2800 more mistakes"}]}"#))
  }

  @Test(
    "who needs a token: secured, or RIG 1's not_secured being false",
    arguments: [
      ("", "jwt", false), (#","secured":true"#, "jwt", true), (#","secured":false"#, "jwt", false),
      (#","not_secured":false"#, "jwt", true), (#","not_secured":true"#, "jwt", false),
      (#","not_secured":false"#, "none", false), (#","secured":true,"not_secured":false"#, "jwt", true),
      (#","secured":true"#, "JWT", true),
    ])
  func secured(more: String, type: String, expected: Bool) throws {
    var table = APITable()
    let definition = try table.create(
      definitionText("a", endpoints: endpointText("e", "/", more: more), more: #""auth_type":"\#(type)","#))
    #expect(definition.endpoints.first?.isSecured == expected)
  }

  @Test(
    "14.D20 RIG 1: what has a path needs a token unless not_secured is true, and whatever else is said",
    arguments: [
      ("", true), (#","not_secured":false"#, true), (#","not_secured":true"#, false),
      (#","not_secured":null"#, true), (#","secured":false"#, true), (#","secured":true"#, true),
      (#","path_regex":"/x""#, true), (#","path_regex":"/x","not_secured":true"#, false),
    ])
  func securedByPath(more: String, expected: Bool) throws {
    for type in ["jwt", "JWT", "Jwt"] {
      var table = APITable()
      let endpoint = #"{"id":"e","method":"GET","path":"/books/{id}"\#(more)}"#
      let definition = try table.create(
        definitionText("a", endpoints: endpoint, more: #""auth_type":"\#(type)","#))
      #expect(definition.endpoints.first?.isSecured == expected)
      // What is kept is read again at every start, and by every worker.
      let read = try definition.json.withUnsafeBytes { try APIDefinition(stored: $0) }
      #expect(read.endpoints.first?.isSecured == expected)
      let match = APIRouter([read]).match(method: "GET", path: "/books/1")
      guard case .match(let found) = match else {
        Issue.record("no match")
        continue
      }
      #expect((found.authority != nil) == expected && found.takesBareToken == expected)
    }
  }

  @Test("14.D20 RIG 1: without JWT a path is open, and who seems to want it otherwise is told")
  func openByPath() throws {
    var table = APITable()
    let open = #"{"id":"e","method":"GET","path":"/e"}"#
    let plain = try table.create(definitionText("a", endpoints: open))
    #expect(plain.endpoints.first?.isSecured == false && plain.warnings.isEmpty)
    let meant = #"{"id":"e","method":"GET","path":"/e","not_secured":false}"#
    let told = try table.create(definitionText("b", endpoints: meant)).warnings
    #expect(told.count == 1 && told.first?.contains("auth_type") == true, "\(told)")
    let closed = #"{"id":"e","method":"GET","path":"/e","secured":false}"#
    let other = try table.create(definitionText("c", endpoints: closed, more: #""auth_type":"jwt","#))
    #expect(other.warnings.count == 1 && other.warnings.first?.contains("not_secured") == true)
  }

  @Test(
    "14.D20 auth_type is none or jwt in any case, and nothing else", arguments: ["", " ", "basic", "jwt "])
  func authTypes(type: String) throws {
    let found = try problems(definitionText("a", endpoints: "", more: #""auth_type":"\#(type)","#))
    #expect(found.contains(#""auth_type":"#), "\(found)")
    #expect(try problems(definitionText("a", endpoints: "", more: #""auth_type":"None","#)) == "{}")
  }

  @Test("14.D19 a schema is accepted and said to be of no effect, with the place where it stands")
  func schema() throws {
    var table = APITable()
    let endpoint = endpointText("e", "/", more: #","target":"kafka","topic":"t","schema":"s""#)
    let definition = try table.create(definitionText("a", endpoints: endpoint))
    #expect(definition.warnings.count == 1)
    #expect(definition.warnings.first?.hasPrefix("API a, endpoint e: schema") == true)
    #expect(try table.create(definitionText("b", endpoints: endpointText("e", "/"))).warnings.isEmpty)
  }

  @Test("where answers come from")
  func responses() throws {
    func response(_ more: String) throws -> APIEndpoint.Response? {
      APIEndpoint(try tree(endpointText("e", "/", more: more)), isJWT: false).responseFrom
    }
    #expect(try response("") == .http)
    #expect(try response(#","target":"","response_from":"""#) == .http)
    #expect(try response(#","target":"kafka","topic":"t""#) == nil)
    #expect(try response(#","target":"kafka","topic":"t","response_from":"kafka""#) == .kafka)
    #expect(try response(#","response_from":"http_async""#) == .httpAsync)
  }

  @Test("never crashes, whatever stands where: every value of a definition is replaced by every kind")
  func wrongKinds() throws {
    let definition = try tree(
      definitionText(
        "a",
        endpoints: endpointText(
          "e", "/e", replacement: "/\\1", more: #","path":"/{a}","target":"kafka","topic":"t""#),
        more:
          #""auth_type":"jwt","auth":{"use_header":true,"header_name":"h","query_name":"q"},"active":true,"#))
    let values = try tree(
      #"[null,true,0,-9223372036854775808,1e300,"","x",[],{},[[]],{"":{}},[null],{"default":7}]"#)
    var tried = 0
    for value in values.elements ?? [] {
      for variant in variants(of: definition, with: value) {
        let problems = APIValidation.problems(of: variant)
        _ = problems.json
        let read = APIDefinition(validated: variant)
        if problems.isEmpty { _ = APIRouter([read]).match(method: "GET", path: "/e") }
        tried += 1
      }
    }
    #expect(tried > 250)
  }

  /// The tree with one of its values replaced, for each of them.
  private func variants(of tree: JSONValue, with value: JSONValue) -> [JSONValue] {
    var all = [value]
    switch tree {
    case .object(let members):
      for (index, member) in members.enumerated() {
        for variant in variants(of: member.value, with: value) {
          var members = members
          members[index].value = variant
          all.append(.object(members))
        }
      }
    case .array(let elements):
      for (index, element) in elements.enumerated() {
        for variant in variants(of: element, with: value) {
          var elements = elements
          elements[index] = variant
          all.append(.array(elements))
        }
      }
    case .scalar: break
    }
    return all
  }

  @Test(
    "a body that is no JSON is malformed",
    arguments: [
      "", "{", #"{"id":1,"id":2}"#, String(repeating: "[", count: 100_000), "nul", "{\"id\":\"\u{1}\"}",
      "\"" + String(repeating: "x", count: APIDefinition.maximumBytes) + "\"",
    ])
  func malformed(body: String) {
    var table = APITable()
    #expect {
      try table.create(body)
    } throws: { error in
      guard case .malformed(let reason)? = error as? APIError else { return false }
      return reason.utf8.count < 300
    }
    #expect(table.count == 0)
  }

  @Test("a body of thousands of members is merged in one pass")
  func manyMembers() throws {
    var table = APITable()
    let members = (0..<30_000).map { #""m\#($0)":1,"# }.joined()
    try table.create(definitionText("a", endpoints: "", more: members))
    #expect(try table.replace("a", definitionText("a", endpoints: "", more: members)).refNumber == 1)
  }
}
