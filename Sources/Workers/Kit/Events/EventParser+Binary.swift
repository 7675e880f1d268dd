// Binary mode: the attributes are headers, the body is the data. The event is put together as structured JSON, and then
// parsed like one that came so: what is demanded of attributes is demanded in one place.
//
//   data is JSON         "data": as it came               by its content type, or without one by itself
//   data is other text   "data": a JSON string
//   other bytes          "data_base64": …  (1.0);  "data": …, "datacontentencoding": "base64"  (before)

import FoundationEssentials

extension EventParser {
  /// An attribute of an event in binary mode, without the prefix of its header.
  struct Attribute {
    let name: String
    let value: String
  }

  /// One event in binary mode.
  ///
  /// - Parameter attributes: names in lower case, as headers have them.
  func binary(
    _ attributes: [Attribute], contentType: String?, data: UnsafeRawBufferPointer, trace: TraceContext,
    acceptedAtNs: UInt64
  ) throws(EventError) -> PreparedEvent {
    guard data.count <= maximumBytes else { throw tooLarge(data.count) }
    var seen = Set<String>()
    var version = SpecVersion.v10
    var json = Array("{".utf8)
    for attribute in attributes {
      guard Self.isAttributeName(attribute.name) else {
        throw EventError(
          "'\(attribute.name.prefix(64))' is no attribute name, expected lower-case letters and digits")
      }
      guard seen.insert(attribute.name).inserted else {
        throw EventError("\(attribute.name) is given twice, expected once")
      }
      guard !["data", "data_base64", "datacontenttype"].contains(attribute.name) else {
        throw EventError(
          "\(attribute.name) is no header in binary mode: data is the body, its type is content-type")
      }
      if attribute.name == "specversion" || attribute.name == "cloudeventsversion" {
        version = SpecVersion(rawValue: attribute.value) ?? version
      }
      if json.count > 1 { json.append(UInt8(ascii: ",")) }
      JSONText.appendString(name(ofAttribute: attribute.name), to: &json)
      json.append(UInt8(ascii: ":"))
      JSONText.appendString(attribute.value, to: &json)
    }
    if let contentType { Self.append(contentType: contentType, version, to: &json) }
    try append(data: data, contentType: contentType, version, to: &json)
    json.append(UInt8(ascii: "}"))
    // Array's closures don't keep the type of what they throw.
    let parsed = json.withUnsafeBytes { bytes in
      Result { () throws(EventError) in
        try event(MemberTable(bytes), bytes, trace, acceptedAtNs, allowsPlain: false)
      }
    }
    return try parsed.get()
  }

  private static func append(contentType: String, _ version: SpecVersion, to json: inout [UInt8]) {
    if json.count > 1 { json.append(UInt8(ascii: ",")) }
    JSONText.appendString(version == .v01 || version == .v02 ? "contenttype" : "datacontenttype", to: &json)
    json.append(UInt8(ascii: ":"))
    JSONText.appendString(contentType, to: &json)
  }

  private func append(
    data: UnsafeRawBufferPointer, contentType: String?, _ version: SpecVersion, to json: inout [UInt8]
  ) throws(EventError) {
    guard !data.isEmpty else { return }
    let range =
      if let contentType { MediaType(contentType).isJSON ? try jsonData(data) : nil } else {
        try? jsonData(data)
      }
    if let range {
      json.append(contentsOf: #","data":"#.utf8)
      json.append(contentsOf: Self.line(data, range))
    } else if (try? JSONScanner.requireUTF8(data)) != nil {
      json.append(contentsOf: #","data":"#.utf8)
      JSONText.appendString(utf8: data, to: &json)
    } else {
      let encoded = Data(data).base64EncodedString()
      let name = version == .v10 ? #","data_base64":""# : #","datacontentencoding":"base64","data":""#
      json.append(contentsOf: name.utf8)
      json.append(contentsOf: encoded.utf8)
      json.append(UInt8(ascii: "\""))
    }
  }

  private func jsonData(_ data: UnsafeRawBufferPointer) throws(EventError) -> Range<Int> {
    do throws(JSONError) {
      try JSONScanner.requireUTF8(data)
      var scanner = JSONScanner(data)
      let range = try scanner.skipValue(depth: 1)
      try scanner.requireEnd()
      return range
    } catch {
      throw EventError("body: \(error), expected JSON as content-type says")
    }
  }

  /// Headers don't keep upper case, which names of version 0.1 have, and the configured name of the users may have:
  /// an event that is addressed in a header must not pass for one that isn't.
  private func name(ofAttribute lowercase: String) -> String {
    switch lowercase {
    case userField.lowercased(): userField
    case "cloudeventsversion": "cloudEventsVersion"
    case "eventtype": "eventType"
    case "eventtypeversion": "eventTypeVersion"
    case "eventid": "eventID"
    case "eventtime": "eventTime"
    default: lowercase
    }
  }

  /// CloudEvents asks for letters and digits; `_` and `-` are met in old extensions.
  private static func isAttributeName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= EventLimit.attributeBytes
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"),
          UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }
}

/// A media type without its parameters, in lower case.
public struct MediaType: Equatable, Sendable {
  public let text: String

  public init(_ field: String) {
    text = field.prefix { $0 != ";" }.lowercased().filter { $0 != " " && $0 != "\t" }
  }

  public var isJSON: Bool { text == "application/json" || text == "text/json" || text.hasSuffix("+json") }
}
