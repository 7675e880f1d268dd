// The schema of API definitions: the rules of APIValidation, as far as JSON Schema can say them.
//
//   NewAPI        what POST takes: one that needs JWT somewhere, or one that doesn't
//   ReplacingAPI  what PUT takes: the same, with any id or none, because the path's counts
//   API           what is answered: a definition as it was taken, with the gateway's own members
//
// `format: rig-pattern` is a regular expression of the dialect that the gateway has (linear time), `format: rig-replacement` a path
// with groups such as \1: no schema can say these.

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
