// Which fields of which event type can be constrained by a subscription, and where they are: in the event, and in a
// token. `{"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"},
// "jwt":{"json_pointer":"/username"}}}}`. A broken table is refused whole: running with fewer constraints than the
// operator asked for would send events to people who may not see them.

/// Where the value of one field is.
public struct Extractor: Codable, Sendable, Equatable {
  /// RFC 6901 tokens into the event; empty: the event itself.
  public var eventPointer: [String]
  /// RFC 6901 tokens into a token's claims; nil: the field makes no automatic subscription.
  public var jwtPointer: [String]?
  /// Whether subscriptions to the event type may only be had with the token's value of this field.
  public var isEnforced: Bool
  /// Accepted for compatibility with RIG 3, without effect.
  public var stableFieldIndex: Int?

  /// An extractor from tokens already parsed.
  public init(
    eventPointer: [String], jwtPointer: [String]? = nil, isEnforced: Bool = false,
    stableFieldIndex: Int? = nil
  ) {
    self.eventPointer = eventPointer
    self.jwtPointer = jwtPointer
    self.isEnforced = isEnforced
    self.stableFieldIndex = stableFieldIndex
  }

  /// What another release doesn't say is as by `init`.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    eventPointer = try values.decode([String].self, forKey: .eventPointer)
    jwtPointer = try values.decodeIfPresent([String].self, forKey: .jwtPointer)
    isEnforced = try values.decodeIfPresent(Bool.self, forKey: .isEnforced) ?? false
    stableFieldIndex = try values.decodeIfPresent(Int.self, forKey: .stableFieldIndex)
  }
}

/// The extractors of all event types.
public struct ExtractorTable: Codable, Sendable, Equatable {
  /// Event type → field name → extractor.
  public var byType: [String: [String: Extractor]]

  /// A table as given; the default has no extractors.
  public init(byType: [String: [String: Extractor]] = [:]) {
    self.byType = byType
  }
}
