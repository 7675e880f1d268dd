// The text by which a number is known on a status page, taken apart and checked.
//
//   rig_http_requests_total{port="inbound",status="2xx"}
//   └──────── name ───────┘ └── label ──┘  └─ label ──┘     values stay escaped, as they will be written
//
// A page is written by another process: a text that a scraper couldn't parse would cost it the whole answer, so one that
// doesn't follow the grammar of the exposition formats is refused here. Pure.

/// A series' name and labels. Shares the storage of the text that it was made from.
struct SeriesText: Equatable {
  /// One label; the value as it stands between the quotation marks.
  struct Label: Equatable {
    var name: Substring
    var escapedValue: Substring
  }

  let name: Substring
  /// The labels as they stand between the braces; empty: there are none.
  let labelText: Substring

  /// Nil: `text` is no series (grammar of OpenMetrics 1.0.0, which Prometheus' text format shares).
  init?(_ text: String) {
    var walk = Walk(rest: text[...])
    guard let name = walk.takeName(colons: true) else { return nil }
    self.name = name
    if walk.rest.isEmpty {
      labelText = ""
      return
    }
    guard walk.take("{") else { return nil }
    let start = walk.rest.startIndex
    var names: [Substring] = []
    repeat {
      guard let label = walk.takeLabel(), !names.contains(label.name) else { return nil }
      names.append(label.name)
    } while walk.take(",")
    labelText = text[start..<walk.rest.startIndex]
    guard walk.take("}"), walk.rest.isEmpty else { return nil }
  }

  var labels: [Label] {
    var walk = Walk(rest: labelText)
    var labels: [Label] = []
    while let label = walk.takeLabel() {
      labels.append(label)
      guard walk.take(",") else { break }
    }
    return labels
  }

  /// The value of the label `name`, nil if there is none, and the text of the others.
  func split(label name: String) -> (value: Substring?, others: String) {
    var value: Substring?
    var others: [String] = []
    for label in labels {
      if label.name == name {
        value = label.escapedValue
      } else {
        others.append("\(label.name)=\"\(label.escapedValue)\"")
      }
    }
    return (value, others.joined(separator: ","))
  }

  /// The labels as text, values escaped; empty for none.
  static func labelText(_ labels: [(name: String, value: String)]) -> String {
    labels.map { "\($0.name)=\"\(escaped($0.value))\"" }.joined(separator: ",")
  }

  /// A label's value as it stands between the quotation marks.
  static func escaped(_ value: String) -> String {
    guard
      value.utf8.contains(where: {
        [UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: "\n")].contains($0)
      })
    else { return value }
    var text = ""
    for character in value.unicodeScalars {
      switch character {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.unicodeScalars.append(character)
      }
    }
    return text
  }
}

/// Takes a text apart from its front.
private struct Walk {
  var rest: Substring

  mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard rest.utf8.first == UInt8(ascii: character) else { return false }
    rest = rest[rest.utf8.index(after: rest.startIndex)...]
    return true
  }

  mutating func takeLabel() -> SeriesText.Label? {
    guard let name = takeName(colons: false), take("="), take("\""), let value = takeValue() else {
      return nil
    }
    return SeriesText.Label(name: name, escapedValue: value)
  }

  /// `[a-zA-Z_][a-zA-Z0-9_]*`, with colons as well in a metric's name.
  mutating func takeName(colons: Bool) -> Substring? {
    let end =
      rest.utf8.firstIndex { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
          false
        case UInt8(ascii: ":"): !colons
        default: true
        }
      } ?? rest.endIndex
    let name = rest[..<end]
    guard let first = name.utf8.first, !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first) else {
      return nil
    }
    rest = rest[end...]
    return name
  }

  /// Up to the closing quotation mark, which is taken too. Only the three escapes of the formats may occur.
  mutating func takeValue() -> Substring? {
    let bytes = rest.utf8
    var index = bytes.startIndex
    while index < bytes.endIndex {
      switch bytes[index] {
      case UInt8(ascii: "\""):
        let value = rest[..<index]
        rest = rest[bytes.index(after: index)...]
        return value
      case UInt8(ascii: "\\"):
        index = bytes.index(after: index)
        let escapes: [UInt8] = [UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: "n")]
        guard index < bytes.endIndex, escapes.contains(bytes[index]) else { return nil }
      case UInt8(ascii: "\n"):
        return nil
      default:
        break
      }
      index = bytes.index(after: index)
    }
    return nil
  }
}
