// Fields of messages by Kit's lists of who they concern.

import Kit

extension HTTPFields.Field {
  /// Whether the name is one of them, in any case and with '_' for '-'.
  public func isIn(_ names: FieldNames) -> Bool { withName { names.contains($0) } }
  /// Whether it says for whom a request comes.
  public var isForwarding: Bool { withName { HeaderFields.isForwarding($0) } }
  /// Whether it may stand behind a body.
  public var mayBeTrailer: Bool { withName { HeaderFields.mayBeTrailer($0) } }
}

extension ConnectionOptions {
  public init(_ fields: HTTPFields) {
    self.init()
    guard fields.contains(name: "connection") else { return }
    for field in fields where field.nameIs("connection") { field.withValue { note(value: $0) } }
  }

  public func contains(_ field: HTTPFields.Field) -> Bool { field.withName { contains($0) } }
}

extension HTTPFields {
  /// Without those that may not stand behind a body.
  var allowedTrailers: HTTPFields {
    var fields = self
    fields.removeAll { !$0.mayBeTrailer }
    return fields
  }
}
