// Setting one member of a JSON object in its text, without building the object anew: everything else stays byte for byte.

extension JSONText {
  /// The object with `value`, a JSON text, as its member `name`; and what that member was before, if it was there.
  ///
  /// - Parameter object: a valid JSON object.
  public static func setting(
    _ name: String, to value: [UInt8], in object: [UInt8]
  ) throws(EventError) -> (object: [UInt8], before: Range<Int>?) {
    let found: Result<(before: Range<Int>?, close: Int, isEmpty: Bool), EventError> =
      object.withUnsafeBytes { bytes in
        Result { () throws(EventError) in
          var before: Range<Int>?
          var isEmpty = true
          var isTwice = false
          var scanner = JSONScanner(bytes)
          do throws(JSONError) {
            try scanner.forEachMember { (scanner, key) throws(JSONError) in
              isEmpty = false
              let isWanted = scanner.says(key, name)
              let range = try scanner.skipValue(depth: 1)
              guard isWanted else { return }
              isTwice = before != nil
              before = range
            }
          } catch {
            throw EventError("body: \(error), expected a JSON object")
          }
          guard !isTwice else { throw EventError("\(name) is given twice, expected once") }
          return (before, scanner.position - 1, isEmpty)
        }
      }
    let (before, close, isEmpty) = try found.get()
    var changed: [UInt8] = []
    changed.reserveCapacity(object.count + value.count + name.utf8.count + 8)
    if let before {
      changed += object[..<before.lowerBound]
      changed += value
      changed += object[before.upperBound...]
    } else {
      changed += object[..<close]
      if !isEmpty { changed.append(UInt8(ascii: ",")) }
      appendString(name, to: &changed)
      changed.append(UInt8(ascii: ":"))
      changed += value
      changed += object[close...]
    }
    return (changed, before)
  }
}
