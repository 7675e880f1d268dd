// What bodies look like, as JSON Schema (OpenAPI 3.1). Those of requests say exactly what is taken: schemathesis sends what they
// allow and what they forbid.

enum OpenAPISchemas {
  /// The members of `components.schemas`.
  ///
  /// - Parameter userField: member of events that addresses them, as JSON; `""`: none does.
  static func all(userField: String) -> String {
    [answers, events(userField), sessions, OpenAPIDefinitionSchema.text].joined(separator: ",\n")
  }

  private static let answers = #"""
    "Problem":{"type":"object","required":["type","title","status","detail"],"additionalProperties":false,"properties":{
      "type":{"type":"string"},"title":{"type":"string"},"status":{"type":"integer","minimum":400,"maximum":599},
      "detail":{"type":"string"}}},
    "Message":{"type":"object","required":["message"],"additionalProperties":false,"properties":{
      "message":{"type":"string"}}},
    "Done":{"type":"object","required":["message"],"additionalProperties":false,"properties":{
      "message":{"const":"ok"},"warnings":{"type":"array","minItems":1,"items":{"type":"string"}}}},
    "Empty":{"type":"object","maxProperties":0},
    "Document":{"type":"object","required":["openapi","info","paths"]},
    "Health":{"type":"object","required":["status","parts"],"properties":{
      "status":{"enum":["ok","unavailable","draining"]},
      "parts":{"type":"array","items":{"type":"object","required":["name","status"],"properties":{
        "name":{"type":"string"},"status":{"enum":["ok","degraded","unavailable"]},"state":{"type":"string"},
        "pid":{"type":"integer"},"heartbeatAgeSeconds":{"type":"number","minimum":0},
        "detail":{"type":"string"}}}}}}
    """#

  private static func events(_ userField: String) -> String {
    let users = userField == "\"\"" ? "" : userField + ##":{"$ref":"#/components/schemas/EventUsers"},"##
    return ##"""
      "Attribute":{"type":"string","minLength":1,"maxLength":4096,"pattern":"^[^\\u0000-\\u001f\\u007f]+$"},
      "EventUsers":{"description":"A name or a list of names. A value of another kind addresses nobody.","anyOf":[
        {"type":["null","boolean","number","object"]},{"$ref":"#/components/schemas/EventUser"},
        {"type":"array","minItems":1,"maxItems":1000,"items":{"$ref":"#/components/schemas/EventUser"}},
        {"type":"array","minItems":1,"items":{"type":["null","boolean","number","object","array"]}}]},
      "EventUser":{"type":"string","minLength":1,"maxLength":1024},
      "Event":{"type":"object","description":"A CloudEvent of version 1.0, 0.3, 0.2 or 0.1 in structured mode.",
        "anyOf":[
          {"required":["specversion","type","source","id"],"properties":{
            "specversion":{"enum":["1.0","0.3","0.2"]},"type":{"$ref":"#/components/schemas/Attribute"},
            "source":{"$ref":"#/components/schemas/Attribute"},"id":{"$ref":"#/components/schemas/Attribute"}}},
          {"required":["cloudEventsVersion","eventType","source","eventID"],"properties":{
            "specversion":{"type":"null"},"cloudEventsVersion":{"const":"0.1"},
            "eventType":{"$ref":"#/components/schemas/Attribute"},
            "source":{"$ref":"#/components/schemas/Attribute"},
            "eventID":{"$ref":"#/components/schemas/Attribute"}}}],
        "if":{"required":["specversion"],"properties":{"specversion":{"const":"1.0"}}},
        "then":{"not":{"required":["data","data_base64"]},"properties":{"data_base64":{"type":["string","null"]}}},
        "properties":{\##(users)"rigexpires":{"anyOf":[{"type":"null"},{"type":"string","format":"date-time","minLength":20}]}}},
      "CorrelatedEvent":{"type":"object","required":["rig"],"properties":{
        "rig":{"type":"object","required":["correlation"],"properties":{
          "correlation":{"type":"string","pattern":"\##(OpenAPIPaths.correlation)"},
          "response_code":{"type":"integer","minimum":200,"maximum":599}}}}},
      "Events":{"type":"array","maxItems":1000,"items":{"$ref":"#/components/schemas/Event"}},
      "Accepted":{"anyOf":[{"type":"object"},{"type":"array","items":{"type":"object"}}]}
      """##
  }

  private static let sessions = #"""
    "BlacklistEntry":{"type":"object","required":["sessionId","validityInSeconds"],"properties":{
      "sessionId":{"type":"string","minLength":1,"maxLength":1024},
      "validityInSeconds":{"anyOf":[{"type":"integer","minimum":1,"maximum":315360000},
        {"type":"string","maxLength":9,"pattern":
        "^([1-9][0-9]{0,7}|[12][0-9]{8}|30[0-9]{7}|31[0-4][0-9]{6}|315[0-2][0-9]{5}|3153[0-5][0-9]{4}|315360000)$"}]}}},
    "Users":{"type":"array","items":{"type":"object","required":["user","connections"],"properties":{
      "user":{"type":"string"},"connections":{"type":"integer","minimum":1}}}},
    "UserNames":{"type":"array","items":{"type":"string"}},
    "Devices":{"type":"array","items":{"type":"object","required":["time","address","device","browser"],
      "properties":{"time":{"type":"integer"},"address":{"type":"string"},"device":{"type":"string"},
        "browser":{"type":"string"}}}},
    "Connections":{"type":"array","minItems":1,"items":{"type":"object",
      "required":["connection","transport","session","since","remote","userAgent","device","subscriptions","node"],
      "properties":{
        "connection":{"type":"string","pattern":"^[0-9]+-[0-9a-f]+$"},"transport":{"type":"string"},
        "session":{"type":["string","null"]},"since":{"type":"string","format":"date-time"},
        "remote":{"type":["string","null"]},"userAgent":{"type":["string","null"]},
        "device":{"type":"object","required":["type","os","browser","browserVersion"],"properties":{
          "type":{"type":"string"},"os":{"type":["string","null"]},"browser":{"type":["string","null"]},
          "browserVersion":{"type":["string","null"]}}},
        "subscriptions":{"type":["array","null"]},"node":{"type":"string"}}}}
    """#
}

/// The schema of API definitions: the rules of APIValidation, as far as JSON Schema can say them.
///
///   NewAPI        what POST takes: one that needs JWT somewhere, or one that doesn't
///   ReplacingAPI  what PUT takes: the same, with any id or none, because the path's counts
///   API           what is answered: a definition as it was taken, with the gateway's own members
///
/// `format: rig-pattern` is a regular expression of the dialect that the gateway has (linear time), `format: rig-replacement` a path
/// with groups such as \1: no schema can say these.
enum OpenAPIDefinitionSchema {
  static let text =
    [
      #"""
      "NewAPI":{"anyOf":[{"$ref":"#/components/schemas/NewUnsecuredAPI"},
        {"$ref":"#/components/schemas/NewSecuredAPI"}]},
      "ReplacingAPI":{"anyOf":[{"$ref":"#/components/schemas/ReplacingUnsecuredAPI"},
        {"$ref":"#/components/schemas/ReplacingSecuredAPI"}]},
      "APIs":{"type":"array","items":{"$ref":"#/components/schemas/API"}},
      "API":{"type":"object",
        "required":["id","name","active","auth_type","auth","versioned","version_data","proxy","ref_number",
          "timestamp","node_name"],
        "properties":{"id":{"type":"string","minLength":1},"name":{"type":"string"},"active":{"enum":[true,null]},
          "auth_type":{"type":["string","null"]},"auth":{"type":["object","null"]},"versioned":{"$ref":"#/components/schemas/Flag"},
          "version_data":{"type":"object"},"proxy":{"type":"object"},
          "ref_number":{"type":"integer","minimum":0},"timestamp":{"type":"string","format":"date-time"},
          "node_name":{"type":"string"}}},
      "Mistakes":{"anyOf":[{"$ref":"#/components/schemas/Message"},
        {"type":"object","minProperties":1,"additionalProperties":{"type":"array","minItems":1,"items":{
          "type":"object","minProperties":1,"maxProperties":1,"additionalProperties":{"type":"string"}}}}]},
      "Flag":{"type":["boolean","null"]},
      "HeaderName":{"type":"string","pattern":"\#(token)"},
      "APIProxy":{"type":"object","required":["target_url","port"],"properties":{
          "port":{"type":"integer","minimum":1,"maximum":65535}},
        "anyOf":[
          {"required":["use_env"],"properties":{"use_env":{"const":true},"target_url":{"type":"string","minLength":1}}},
          {"properties":{"use_env":{"enum":[false,null]},"target_url":{"type":"string","pattern":"\#(origin)"}}}]},
      "AddedHeaders":{"type":["object","null"],"properties":{"add_headers":{"type":["object","null"],
        "propertyNames":{"pattern":"\#(token)"},
        "additionalProperties":{"type":["string"],"pattern":"^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$"}}}},
      "OtherVersion":{"type":"object","required":["endpoints"],"properties":{"endpoints":{"type":"array"},
        "transform_request_headers":{"$ref":"#/components/schemas/AddedHeaders"}}}
      """#,
      definition("NewUnsecuredAPI", isSecured: false, hasID: true),
      definition("NewSecuredAPI", isSecured: true, hasID: true),
      definition("ReplacingUnsecuredAPI", isSecured: false, hasID: false),
      definition("ReplacingSecuredAPI", isSecured: true, hasID: false),
    ].joined(separator: ",\n")

  private static let token = #"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"#
  /// Scheme, host and what comes behind, which doesn't count.
  private static let origin = #"^([hH][tT][tT][pP][sS]?://)?[A-Za-z0-9_.-]+(:[^/?#@]*)?([/?#][^\\u0000]*)?$"#

  private static func definition(_ name: String, isSecured: Bool, hasID: Bool) -> String {
    let auth =
      isSecured
      ? ##"""
      "auth_type":{"const":"jwt"},
      "auth":{"type":["object","null"],
        "properties":{"header_name":{"anyOf":[{"type":"null"},{"const":""},{"$ref":"#/components/schemas/HeaderName"}]},
          "query_name":{"type":["string","null"]},"use_header":{"$ref":"#/components/schemas/Flag"},
          "use_query":{"$ref":"#/components/schemas/Flag"}},
        "allOf":[
          {"anyOf":[{"properties":{"use_header":{"enum":[false,null]}}},
            {"required":["header_name"],"properties":{"header_name":{"$ref":"#/components/schemas/HeaderName"}}}]},
          {"anyOf":[{"properties":{"use_query":{"enum":[false,null]}}},
            {"required":["query_name"],"properties":{"query_name":{"type":"string","pattern":"^[!-~]+$"}}}]}]}
      """##
      : ##"""
      "auth_type":{"enum":["none",null]},
      "auth":{"type":["object","null"],"properties":{
        "header_name":{"anyOf":[{"type":"null"},{"const":""},{"$ref":"#/components/schemas/HeaderName"}]},
        "query_name":{"type":["string","null"]},"use_header":{"enum":[false,null]},"use_query":{"enum":[false,null]}}}
      """##
    let required =
      "[" + (isSecured ? #""auth_type","# : "") + (hasID ? #""id","# : "")
      + #""name","version_data","proxy"]"#
    let id = hasID ? #""id":{"type":"string","minLength":1,"maxLength":256},"# : ""
    let secured = isSecured ? ##"{"$ref":"#/components/schemas/Flag"}"## : #"{"enum":[false,null]}"#
    return ##"""
      "\##(name)":{"type":"object","required":\##(required),"properties":{
        \##(id)"name":{"type":"string","minLength":1},
        "active":{"$ref":"#/components/schemas/Flag"},"versioned":{"enum":[false,null]},
        "proxy":{"$ref":"#/components/schemas/APIProxy"},\##(auth),
        "version_data":{"type":"object","minProperties":1,
          "additionalProperties":{"$ref":"#/components/schemas/OtherVersion"},
          "properties":{"default":{"type":"object","required":["endpoints"],"properties":{
            "transform_request_headers":{"$ref":"#/components/schemas/AddedHeaders"},
            "endpoints":{"type":"array","maxItems":2000,"items":{"type":"object",
              "required":["id","method"],"anyOf":[
                {"required":["path_regex"],"properties":{"path_regex":{"type":"string"}}},
                {"required":["path"],"properties":{"path":{"type":"string","minLength":1}}}],"properties":{
                "id":{"type":"string","minLength":1},"method":{"$ref":"#/components/schemas/HeaderName"},
                "path":{"type":["string","null"],"format":"rig-pattern"},
                "path_regex":{"type":["string","null"],"minLength":1,"format":"rig-pattern"},
                "path_replacement":{"type":["string","null"],"format":"rig-replacement"},
                "secured":\##(secured),"not_secured":{"enum":[false,null]},
                "transform_request_headers":{"$ref":"#/components/schemas/Flag"},
                "forward_credentials":{"$ref":"#/components/schemas/Flag"},
                "target":{"type":["string","null"],"pattern":"^([hH][tT][tT][pP])?$"},
                "response_from":{"type":["string","null"],"pattern":"^([hH][tT][tT][pP])?$"},
                "topic":{"type":["string","null"]}}}}}}}}}}
      """##
  }
}
