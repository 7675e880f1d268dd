// What the tests of JSON share: the scanner's word on a whole text.

@testable import Kit

/// Why `text` is no JSON; nil if it is. Of a guarded copy.
func refusal(_ text: some Collection<UInt8>) -> JSONError? {
  withGuarded(text) { bytes in
    do throws(JSONError) {
      try JSONScanner.requireUTF8(bytes)
      var scanner = JSONScanner(bytes)
      try scanner.skipValue()
      try scanner.requireEnd()
      return nil
    } catch {
      return error
    }
  }
}

func refusal(_ text: String) -> JSONError? { refusal(Array(text.utf8)) }
