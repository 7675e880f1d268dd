// RFC 6901 pointers as lists of unescaped tokens: "/data/a~1b" is ["data", "a/b"]. Parsed once, at start; whoever
// follows a pointer works with the tokens.

public enum JSONPointer {
  /// The pointer with these tokens, escaped.
  public static func text(_ tokens: [String]) -> String {
    tokens.map { "/" + $0.replacing("~", with: "~0").replacing("/", with: "~1") }.joined()
  }

  /// Parses `text`. The empty text points to the whole document and gives no tokens.
  static func parse(_ text: String) throws(ValueProblem) -> [String] {
    guard !text.isEmpty else { return [] }
    guard text.hasPrefix("/") else {
      throw ValueProblem("'\(text)' is no JSON Pointer (RFC 6901): it must begin with '/'")
    }
    var tokens: [String] = []
    for part in text.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
      tokens.append(try unescape(part, of: text))
    }
    return tokens
  }

  private static func unescape(_ part: Substring, of text: String) throws(ValueProblem) -> String {
    var token = ""
    var escaped = false
    for character in part.unicodeScalars {
      if escaped {
        switch character {
        case "0": token.unicodeScalars.append("~")
        case "1": token.unicodeScalars.append("/")
        default: throw badEscape(in: text)
        }
        escaped = false
      } else if character == "~" {
        escaped = true
      } else {
        token.unicodeScalars.append(character)
      }
    }
    guard !escaped else { throw badEscape(in: text) }
    return token
  }

  private static func badEscape(in text: String) -> ValueProblem {
    ValueProblem("'\(text)' is no JSON Pointer (RFC 6901): '~' must be followed by '0' or '1'")
  }
}
