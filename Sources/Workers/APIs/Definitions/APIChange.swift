// From what a client sends to what is stored: RIG's defaults on POST, its merge on PUT.

import Kit

/// When and where a change is made; comes in as a value so that tests choose it.
public struct APIChange: Equatable, Sendable {
  /// ISO 8601.
  public let timestamp: String
  public let nodeName: String

  public init(timestamp: String, nodeName: String) {
    self.timestamp = timestamp
    self.nodeName = nodeName
  }
}

extension APIDefinition {
  /// A new definition: RIG's defaults for what isn't said.
  static func created(_ body: JSONValue, refNumber: Int64, _ change: APIChange) -> APIDefinition {
    var document = body
    document.setDefault("active", .scalar(.bool(true)))
    document.setDefault("auth_type", .scalar(.string("none")))
    var auth = document.member("auth") ?? .object([])
    if isJWT(document) {
      // A header that is named stays: RIG 3 overwrites it, and then never looks at it.
      auth.set("use_header", .scalar(.bool(true)))
      if auth.text("header_name") == nil { auth.set("header_name", .scalar(.string("Authorization"))) }
    }
    auth.setDefault("use_header", .scalar(.bool(false)))
    auth.setDefault("header_name", .scalar(.string("")))
    auth.setDefault("use_query", .scalar(.bool(false)))
    auth.setDefault("query_name", .scalar(.string("")))
    document.set("auth", auth)
    document.setDefault("versioned", .scalar(.bool(false)))
    return stamped(document, refNumber: refNumber, change)
  }

  /// This definition with the members of `body` laid over it, each replaced whole. Its id stays.
  func merged(_ body: JSONValue, _ change: APIChange) -> APIDefinition {
    var document = document.overlaid(with: body)
    document.set("id", .scalar(.string(id)))
    let (next, overflow) = refNumber.addingReportingOverflow(1)
    return Self.stamped(document, refNumber: overflow ? 0 : next, change)
  }

  private static func stamped(
    _ document: JSONValue, refNumber: Int64, _ change: APIChange
  ) -> APIDefinition {
    var document = document
    document.set("ref_number", .scalar(.integer(refNumber)))
    document.set("timestamp", .scalar(.string(change.timestamp)))
    document.set("node_name", .scalar(.string(change.nodeName)))
    return APIDefinition(validated: document)
  }
}
