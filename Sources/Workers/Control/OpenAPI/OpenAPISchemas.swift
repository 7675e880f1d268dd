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
