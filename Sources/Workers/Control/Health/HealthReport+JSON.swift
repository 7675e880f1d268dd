// A report as JSON, for probes and people:
//
//   {"status":"ok","parts":[{"name":"connections.0","status":"ok","state":"ready","pid":4711,"heartbeatAgeSeconds":0.4}]}

import Kit

extension HealthReport {
  /// One line.
  var json: [UInt8] {
    var bytes: [UInt8] = []
    let status = isAvailable ? HealthPart.Status.ok : .unavailable
    Self.member("status", isDraining ? Self.draining : status.rawValue, &bytes)
    bytes.append(contentsOf: ",\"parts\":[".utf8)
    for (index, part) in parts.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(contentsOf: part.json)
    }
    return Array("{".utf8) + bytes + Array("]}\n".utf8)
  }

  static func member(_ name: String, _ text: String, _ bytes: inout [UInt8]) {
    JSONText.appendString(name, to: &bytes)
    bytes.append(UInt8(ascii: ":"))
    JSONText.appendString(text, to: &bytes)
  }
}

extension HealthPart {
  private static let nsPerMillisecond: UInt64 = 1_000_000
  private static let millisecondsPerSecond: Double = 1000

  fileprivate var json: [UInt8] {
    var bytes: [UInt8] = [UInt8(ascii: "{")]
    HealthReport.member("name", name, &bytes)
    bytes.append(UInt8(ascii: ","))
    HealthReport.member("status", status.rawValue, &bytes)
    if let state {
      bytes.append(UInt8(ascii: ","))
      HealthReport.member("state", "\(state)", &bytes)
    }
    if let pid { bytes.append(contentsOf: ",\"pid\":\(pid)".utf8) }
    if let heartbeatAgeNs {
      let seconds = Double(heartbeatAgeNs / Self.nsPerMillisecond) / Self.millisecondsPerSecond
      bytes.append(contentsOf: ",\"heartbeatAgeSeconds\":\(seconds)".utf8)
    }
    if let detail {
      bytes.append(UInt8(ascii: ","))
      HealthReport.member("detail", detail, &bytes)
    }
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }
}
