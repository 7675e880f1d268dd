// The fields of a head, or trailers, in octets (RFC 9110 §5): what came in goes out byte for byte, whatever its coding.
//
//   octets   h o s t :   a ␍ ␊ a c c e p t :   * / * ␍ ␊        the lines as HTTP/1.1 has them: one copy into a socket or a ring
//   places             ▲ ▲                     ▲     ▲          of each field where its value begins, and where it ends
//
// Invariant: a name is a token, a value has no control octet but the tab and no blank at its ends, and ": " and CRLF stand around it. So
// no field can begin another one, or a message, wherever it is written. Strings are made when asked for, for logs, JSON and decisions.

import Kit

public struct HTTPFields: Sendable {
  @usableFromInline struct Place: Sendable {
    @usableFromInline let value: UInt32
    /// Behind the value; CRLF follows, and then the next field.
    @usableFromInline let end: UInt32
  }

  /// Most heads have fewer.
  private static let usualFields = 16
  private static let separator: StaticString = ": "
  private static let lineEnd: StaticString = "\r\n"
  /// Around name and value.
  @usableFromInline static let framingBytes = 4
  @usableFromInline static let maximumBytes = Int(UInt32.max)

  @usableFromInline private(set) var octets: [UInt8] = []
  @usableFromInline private(set) var places: [Place] = []

  public init() {}

  public init(_ pairs: some Sequence<(String, String)>) { add(contentsOf: pairs) }

  public init(_ fields: some Sequence<Field>) {
    for field in fields { add(field) }
  }

  /// Takes over lines that `wireBlock` has given, wherever they have been since.
  ///
  /// - Returns: nil if they are anything else.
  public init?(wireBlock: some Collection<UInt8>) { self.init(wireBlock: Array(wireBlock)) }

  /// The same without a copy.
  public init?(wireBlock octets: [UInt8]) {
    guard octets.count <= Self.maximumBytes, let places = octets.withUnsafeBufferPointer(Self.places) else {
      return nil
    }
    self.octets = octets
    self.places = places
  }

  /// All lines, without the empty one that ends a head. Shares the storage.
  public var wireBlock: [UInt8] { octets }

  /// Of all lines.
  public var bytes: Int { octets.count }

  public func withWireBlock<Result>(
    _ body: (UnsafeBufferPointer<UInt8>) throws -> Result
  ) rethrows -> Result {
    try octets.withUnsafeBufferPointer(body)
  }

  // MARK: Adding

  public mutating func reserveCapacity(_ fields: Int) { places.reserveCapacity(fields) }

  /// - Parameter bytes: of the lines in all.
  public mutating func reserveBytes(_ bytes: Int) { octets.reserveCapacity(bytes) }

  /// Adds a field behind the others. Control octets in the value, line ends among them, become blanks, and blanks around it go.
  ///
  /// - Returns: false if the name is no token: then nothing is added.
  @discardableResult
  public mutating func add(name: String, value: String) -> Bool {
    name.withOctets { name in value.withOctets { append(name, $0) } }
  }

  @discardableResult
  public mutating func add(name: String, value: some Collection<UInt8>) -> Bool {
    name.withOctets { name in Self.withOctets(value) { append(name, $0) } }
  }

  @discardableResult
  public mutating func add(name: some Collection<UInt8>, value: some Collection<UInt8>) -> Bool {
    Self.withOctets(name) { name in Self.withOctets(value) { append(name, $0) } }
  }

  /// The same with a value that `appendValue` appends.
  ///
  /// - Parameter name: a token.
  public mutating func add(name: StaticString, _ appendValue: (inout [UInt8]) -> Void) {
    let start = octets.count
    let name = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    octets.append(contentsOf: name)
    append(Self.separator)
    let valueStart = octets.count
    appendValue(&octets)
    let isClean = octets.withUnsafeBufferPointer { octets in
      let value = UnsafeBufferPointer(rebasing: octets[valueStart...])
      guard let first = value.first, let last = value.last else { return true }
      return HTTPOctets.isFieldValue(value) && !HTTPOctets.isBlank(first) && !HTTPOctets.isBlank(last)
    }
    guard isClean, octets.count + Self.framingBytes <= Self.maximumBytes else {
      let value = Array(octets[valueStart...])
      octets.removeSubrange(start...)
      _ = value.withUnsafeBufferPointer { append(name, $0) }
      return
    }
    append(Self.lineEnd)
    note(start: start, nameCount: name.count)
  }

  /// Adds those of the fields that `isKept` finds by name and value.
  @inlinable
  public mutating func add(
    contentsOf other: HTTPFields,
    where isKept: (_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) -> Bool
  ) {
    guard octets.count + other.octets.count <= Self.maximumBytes else { return }
    other.octets.withUnsafeBufferPointer { octets in
      var start = 0
      // Lines that are kept and stand together are copied together.
      var kept = 0
      for place in other.places {
        let (value, end) = (Int(place.value), Int(place.end))
        let name = UnsafeBufferPointer(rebasing: octets[start..<(value - 2)])
        if isKept(name, UnsafeBufferPointer(rebasing: octets[value..<end])) {
          note(place, movedBy: self.octets.count - kept)
        } else {
          append(lines: UnsafeBufferPointer(rebasing: octets[kept..<start]))
          kept = end + 2
        }
        start = end + 2
      }
      append(lines: UnsafeBufferPointer(rebasing: octets[kept..<start]))
    }
  }

  public mutating func add(_ field: Field) {
    let start = octets.count
    guard start + field.line.count <= Self.maximumBytes else { return }
    octets.append(contentsOf: field.line)
    note(start: start, nameCount: field.nameOctets.count)
  }

  public mutating func add(contentsOf other: HTTPFields) {
    guard !isEmpty else {
      self = other
      return
    }
    guard octets.count + other.octets.count <= Self.maximumBytes else { return }
    let shift = UInt32(octets.count)
    octets.append(contentsOf: other.octets)
    places.reserveCapacity(places.count + other.places.count)
    for place in other.places { places.append(Place(value: place.value + shift, end: place.end + shift)) }
  }

  public mutating func add(contentsOf pairs: some Sequence<(String, String)>) {
    for (name, value) in pairs { add(name: name, value: value) }
  }

  /// A whole line, its end included, of which is known that it keeps the invariant.
  mutating func append(line: UnsafeBufferPointer<UInt8>, nameCount: Int) {
    let start = octets.count
    guard start + line.count <= Self.maximumBytes else { return }
    octets.append(contentsOf: line)
    note(start: start, nameCount: nameCount)
  }

  /// Whole lines, of which is known that they keep the invariant, and which have been noted.
  @usableFromInline
  mutating func append(lines: UnsafeBufferPointer<UInt8>) { octets.append(contentsOf: lines) }

  /// A field of others, which stands elsewhere here.
  @usableFromInline
  mutating func note(_ place: Place, movedBy distance: Int) {
    places.append(
      Place(value: UInt32(Int(place.value) + distance), end: UInt32(Int(place.end) + distance)))
  }

  private mutating func append(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>)
    -> Bool
  {
    let value = HTTPOctets.trimmed(value)
    let start = octets.count
    guard HTTPOctets.isToken(name), start + name.count + value.count + Self.framingBytes <= Self.maximumBytes
    else { return false }
    octets.append(contentsOf: name)
    append(Self.separator)
    let valueStart = octets.count
    octets.append(contentsOf: value)
    if !HTTPOctets.isFieldValue(value) {
      for position in valueStart..<octets.count
      where !HTTPOctets.isFieldValue(CollectionOfOne(octets[position])) {
        octets[position] = UInt8(ascii: " ")
      }
      // A blank at an end would be none of the value.
      while octets.count > valueStart, let last = octets.last, HTTPOctets.isBlank(last) {
        octets.removeLast()
      }
      let blanks = octets[valueStart...].prefix(while: HTTPOctets.isBlank).count
      octets.removeSubrange(valueStart..<(valueStart + blanks))
    }
    append(Self.lineEnd)
    note(start: start, nameCount: name.count)
    return true
  }

  private mutating func append(_ text: StaticString) {
    octets.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// The field that was appended from `start` on.
  private mutating func note(start: Int, nameCount: Int) {
    places.append(
      Place(
        value: UInt32(start + nameCount + Self.separator.utf8CodeUnitCount),
        end: UInt32(octets.count - Self.lineEnd.utf8CodeUnitCount)))
  }

  // MARK: Removing

  /// Removes all of that name, and adds one behind the others.
  public mutating func replaceOrAdd(name: String, value: String) {
    remove(name: name)
    add(name: name, value: value)
  }

  public mutating func remove(name: String) {
    guard contains(name: name) else { return }
    name.withOctets { wanted in removeAll { $0.withName { Self.isSame($0, wanted) } } }
  }

  public mutating func removeAll(where isRemoved: (Field) -> Bool) {
    guard let first = firstIndex(where: isRemoved) else { return }
    let old = self
    octets.removeSubrange(old.start(of: first)...)
    places.removeSubrange(first...)
    for field in old[(first + 1)...] where !isRemoved(field) { add(field) }
  }

  /// Those that `isKept` finds by name; all of them share these octets.
  @inlinable
  public func filtered(_ isKept: (_ name: UnsafeBufferPointer<UInt8>) -> Bool) -> HTTPFields {
    let areAllKept = octets.withUnsafeBufferPointer { octets in
      var start = 0
      for place in places {
        guard isKept(UnsafeBufferPointer(rebasing: octets[start..<(Int(place.value) - 2)])) else {
          return false
        }
        start = Int(place.end) + 2
      }
      return true
    }
    guard !areAllKept else { return self }
    var kept = HTTPFields()
    kept.reserveBytes(octets.count)
    kept.reserveCapacity(places.count)
    kept.add(contentsOf: self) { name, _ in isKept(name) }
    return kept
  }

  // MARK: Looking up, by name in any case of its ASCII letters

  public func contains(name: String) -> Bool { index(of: name, from: 0) != nil }

  public func count(of name: String) -> Int {
    var count = 0
    var next = 0
    while let found = index(of: name, from: next) {
      count += 1
      next = found + 1
    }
    return count
  }

  /// The value of the first field of that name; what isn't UTF-8 is replaced.
  public func first(name: String) -> String? { index(of: name, from: 0).map { self[$0].value } }

  /// The value of the first field of that name.
  public func octets(of name: String) -> ArraySlice<UInt8>? {
    index(of: name, from: 0).map { self[$0].valueOctets }
  }

  /// The values of all fields of that name.
  public subscript(name: String) -> [String] {
    var values: [String] = []
    var next = 0
    while let found = index(of: name, from: next) {
      values.append(self[found].value)
      next = found + 1
    }
    return values
  }

  /// Whether the fields of that name, as lists (RFC 9110 §5.6.1), have `option` in any case.
  public func hasOption(_ option: StaticString, in name: String) -> Bool {
    var next = 0
    while let found = index(of: name, from: next) {
      if self[found].hasOption(option) { return true }
      next = found + 1
    }
    return false
  }

  /// Names and values as strings.
  public var strings: some Sequence<(name: String, value: String)> {
    lazy.map { (name: $0.name, value: $0.value) }
  }

  private func index(of name: String, from first: Int) -> Int? {
    name.withOctets { wanted in
      octets.withUnsafeBufferPointer { octets in
        var start = self.start(of: first)
        for index in first..<places.count {
          let place = places[index]
          let end = Int(place.value) - Self.separator.utf8CodeUnitCount
          if end - start == wanted.count, Self.isSame(.init(rebasing: octets[start..<end]), wanted) {
            return index
          }
          start = Int(place.end) + Self.lineEnd.utf8CodeUnitCount
        }
        return nil
      }
    }
  }

  @inlinable func start(of index: Int) -> Int { index == 0 ? 0 : Int(places[index - 1].end) + 2 }

  /// Whether two names are the same.
  private static func isSame(_ a: UnsafeBufferPointer<UInt8>, _ b: UnsafeBufferPointer<UInt8>) -> Bool {
    guard a.count == b.count else { return false }
    for position in 0..<a.count where a[position] != b[position] {
      guard folded(a[position]) == folded(b[position]) else { return false }
    }
    return true
  }

  private static func folded(_ octet: UInt8) -> UInt8 {
    UInt8(ascii: "A")...UInt8(ascii: "Z") ~= octet ? octet | 0x20 : octet
  }

  /// Where the fields of a block are; nil: it keeps the invariant not.
  private static func places(of octets: UnsafeBufferPointer<UInt8>) -> [Place]? {
    var places: [Place] = []
    places.reserveCapacity(usualFields)
    let areLines = HTTPOctets.forEachFieldLine(of: octets) { value, end in
      places.append(Place(value: UInt32(value), end: UInt32(end)))
    }
    return areLines ? places : nil
  }

  private static func withOctets<Result>(
    _ octets: some Collection<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Result
  ) -> Result {
    octets.withContiguousStorageIfAvailable(body) ?? Array(octets).withUnsafeBufferPointer(body)
  }
}

extension HTTPFields: RandomAccessCollection {
  public var startIndex: Int { 0 }
  public var endIndex: Int { places.count }

  public subscript(position: Int) -> Field {
    let place = places[position]
    return Field(octets: octets, start: start(of: position), value: Int(place.value), end: Int(place.end))
  }

  /// One of the fields: shares the octets of all.
  public struct Field: Sendable {
    private let octets: [UInt8]
    private let start: Int
    private let valueStart: Int
    private let end: Int

    fileprivate init(octets: [UInt8], start: Int, value: Int, end: Int) {
      self.octets = octets
      self.start = start
      valueStart = value
      self.end = end
    }

    public var nameOctets: ArraySlice<UInt8> { octets[start..<(valueStart - 2)] }
    public var valueOctets: ArraySlice<UInt8> { octets[valueStart..<end] }
    /// The whole line, its end included.
    public var line: ArraySlice<UInt8> { octets[start..<(end + 2)] }
    public var nameCount: Int { valueStart - 2 - start }
    public var name: String { withName { String(decoding: $0, as: UTF8.self) } }
    /// What isn't UTF-8 is replaced.
    public var value: String { withValue { String(decoding: $0, as: UTF8.self) } }

    /// In any case of its ASCII letters.
    public func nameIs(_ lowercase: StaticString) -> Bool {
      valueStart - 2 - start == lowercase.utf8CodeUnitCount
        && withName { HTTPOctets.matches($0, lowercase) }
    }

    /// In any case of its ASCII letters.
    public func valueIs(_ lowercase: StaticString) -> Bool { withValue { HTTPOctets.matches($0, lowercase) } }

    /// Whether the value, as a list, has `option` in any case.
    public func hasOption(_ option: StaticString) -> Bool {
      withValue { value in
        var rest = value[...]
        while rest.count >= option.utf8CodeUnitCount {
          let end = rest.firstIndex(of: UInt8(ascii: ",")) ?? rest.endIndex
          if HTTPOctets.matches(HTTPOctets.trimmed(rest[..<end]), option) { return true }
          rest = rest[Swift.min(end + 1, rest.endIndex)...]
        }
        return false
      }
    }

    public func withName<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
      octets.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[start..<(valueStart - 2)])) }
    }

    public func withValue<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
      octets.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[valueStart..<end])) }
    }
  }
}

extension HTTPFields: Equatable {
  /// The same fields in the same order, octet for octet.
  public static func == (a: HTTPFields, b: HTTPFields) -> Bool { a.octets == b.octets }
}

extension HTTPFields: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral fields: (String, String)...) { self.init(fields) }
}

extension HTTPFields: CustomStringConvertible {
  public var description: String { String(decoding: octets, as: UTF8.self) }
}

extension String {
  /// Without a copy, most often.
  fileprivate func withOctets<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
    utf8.withContiguousStorageIfAvailable(body) ?? Array(utf8).withUnsafeBufferPointer(body)
  }
}

// MARK: By Kit's lists of whom fields concern

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
