// The event that a request to Kafka becomes (contract §8): the client's own, with what the gateway knows of the request in the member
// `rig`. What the client has put there is replaced, but for its wish about the partition. Pure.

import Kit

struct ProducedEvent {
  /// What is known of the request.
  struct Origin {
    var correlation: String
    var remoteIP: String
    var host: String
    var port: Int
    var scheme: String
    var headers: [(name: String, value: String)]
    var method: String
    var path: String
    var query: String
  }

  /// Decides about the partition; nil: any.
  let key: String?
  let json: [UInt8]

  /// - Parameter event: as the parser has made it: one valid JSON object.
  init(_ event: [UInt8], _ origin: Origin) throws(EventError) {
    let (json, before) = try JSONText.setting("rig", to: origin.json, in: event)
    key = try before.flatMap { range throws(EventError) in try Self.partition(event, range) }
    self.json = json
  }

  private static func partition(_ event: [UInt8], _ rig: Range<Int>) throws(EventError) -> String? {
    let found = event.withUnsafeBytes { bytes -> Result<String?, EventError> in
      guard let place = JSONScanner.place(of: ["target_partition"], in: bytes, from: rig),
        bytes[place.lowerBound] != UInt8(ascii: "n")
      else { return .success(nil) }
      guard let text = JSONScanner.string(bytes, in: place) else {
        return .failure(EventError("rig.target_partition is no string, expected a string"))
      }
      return .success(text)
    }
    return try found.get()
  }
}

extension ProducedEvent.Origin {
  /// The member `rig`.
  var json: [UInt8] {
    var json = Array("{".utf8)
    func member(_ name: String, _ value: String) {
      if json.count > 1 { json.append(UInt8(ascii: ",")) }
      JSONText.appendString(name, to: &json)
      json.append(UInt8(ascii: ":"))
      JSONText.appendString(value, to: &json)
    }
    member("correlation", correlation)
    member("remoteip", remoteIP)
    member("host", host)
    json += #","port":\#(port)"#.utf8
    member("scheme", scheme)
    member("method", method)
    member("path", path)
    member("query", query)
    json += #","headers":"#.utf8
    JSONText.appendArray(headers, to: &json) { field, json in
      JSONText.appendArray([field.name, field.value], to: &json) { JSONText.appendString($0, to: &$1) }
    }
    json.append(UInt8(ascii: "}"))
    return json
  }

  /// Host and port of a field `host`; without a port it is the scheme's.
  static func split(host field: String, defaultPort: Int) -> (host: String, port: Int) {
    guard let colon = field.lastIndex(of: ":"), !field[colon...].contains("]"),
      let port = Int(field[field.index(after: colon)...]), (1...65_535).contains(port)
    else { return (field, defaultPort) }
    return (String(field[..<colon]), port)
  }
}
