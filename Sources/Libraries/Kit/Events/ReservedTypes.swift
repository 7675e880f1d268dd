// The types of events that the gateway alone makes: those that begin with `rig.` (contract §1). Whoever could make one could tell a
// client that its connection has another token, or that its session has ended.
//
// Every event comes through EventParser, which asks here whatever form it has; a response that is an event is asked about as well.

/// Which texts are types of the gateway's own events, and where a client could read one.
public enum ReservedTypes {
  static let prefix = "rig."

  static func contains(_ type: some StringProtocol) -> Bool { type.utf8.starts(with: prefix.utf8) }

  /// Lower case, since there are JSON readers that take a member for another that differs in case alone.
  private static let memberNames: Set<String> = ["type", "eventtype"]
  private static let versionNames: Set<String> = ["specversion", "cloudeventsversion"]
  private static let memberLengths = Set(memberNames.map(\.utf8.count))
  private static let versionLengths = Set(versionNames.map(\.utf8.count))

  /// Refuses an object with a type of ours in any of the members that a client could take for the event's type, in whatever version
  /// of CloudEvents, or in none: over a WebSocket an addressed object looks like an event.
  static func refuse(in members: MemberTable) throws(EventError) {
    let found = members.firstString(among: memberNames, lengths: memberLengths) { contains($0) }
    guard let (name, type) = found else { return }
    throw refusal(name, type)
  }

  private static func refusal(_ name: String, _ type: String) -> EventError {
    EventError(
      "\(name.prefix(64)) is '\(type.prefix(64))': types that begin with '\(prefix)' are the gateway's own, expected another one"
    )
  }

  // MARK: Responses

  /// Refuses a service's response (contract §8) that is one of our events, or could be taken for one.
  ///
  /// - Parameters:
  ///   - fields: of the response, names in lower case.
  ///   - body: read if it may be JSON.
  public static func refuse(
    inResponse fields: some Sequence<(name: String, value: String)>, body whole: UnsafeRawBufferPointer
  ) throws(EventError) {
    // A browser's `response.json()` takes a byte order mark off (Encoding standard, "UTF-8 decode").
    let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
    let body = UnsafeRawBufferPointer(rebasing: whole.dropFirst(whole.starts(with: mark) ? mark.count : 0))
    var isTyped = false
    for (name, value) in fields {
      if name == "content-type" { isTyped = MediaType(value).text.hasPrefix("application/cloudevents") }
      guard name.hasPrefix("ce-") || name.hasPrefix("ce_"), memberNames.contains(String(name.dropFirst(3)))
      else {
        continue
      }
      let type = AttributeRule.decodedHeader(value) ?? value
      if contains(type) { throw refusal("header \(name)", type) }
    }
    guard let first = body.first(where: { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }) else { return }
    if first == UInt8(ascii: "{") {
      guard let members = try? MemberTable(body) else { return }
      try refuse(in: members, ifEvent: isTyped)
    } else if first == UInt8(ascii: "["), (try? JSONScanner.requireUTF8(body)) != nil {
      var ranges: [Range<Int>] = []
      var scanner = JSONScanner(body)
      let isList: Void? = try? scanner.forEachElement { (scanner, _) throws(JSONError) in
        ranges.append(try scanner.skipValue(depth: 1))
      }
      guard isList != nil else { return }
      for range in ranges where body[range.lowerBound] == UInt8(ascii: "{") {
        guard let members = try? MemberTable(validated: body, in: range) else { continue }
        try refuse(in: members, ifEvent: isTyped)
      }
    }
  }

  /// What says nothing of CloudEvents is a service's own JSON, whatever its members are called.
  private static func refuse(in members: MemberTable, ifEvent isTyped: Bool) throws(EventError) {
    guard
      isTyped
        || members.firstString(among: versionNames, lengths: versionLengths, where: { _ in true }) != nil
    else { return }
    try refuse(in: members)
  }
}
