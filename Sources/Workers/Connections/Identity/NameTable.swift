// A dictionary from names to values that is asked with bytes out of a record: no text is made for a look-up. Names are
// their UTF-8, and come from outside: the hash is keyed.

struct NameTable<Value> {
  private struct Entry {
    let name: [UInt8]
    var value: Value
  }

  private let hasher: KeyedHash
  /// By hash; nearly always one.
  private var entries: [UInt64: [Entry]] = [:]
  private(set) var count = 0

  /// - Parameter seed: of the hashes; leave it to chance outside of tests.
  init(seed: UInt64 = .random(in: 0 ... .max)) { hasher = KeyedHash(seed: seed) }

  var isEmpty: Bool { count == 0 }

  subscript(name: UnsafeRawBufferPointer) -> Value? {
    guard count > 0, let chain = entries[hasher.hash(name)] else { return nil }
    for entry in chain where entry.name.withUnsafeBytes({ $0.equals(name) }) { return entry.value }
    return nil
  }

  subscript(name: String) -> Value? {
    var name = name
    return name.withUTF8 { self[UnsafeRawBufferPointer($0)] }
  }

  /// Changes the value of a name in place; nil: there is none, before or after.
  mutating func update(_ name: String, _ change: (inout Value?) -> Void) {
    let bytes = Array(name.utf8)
    let hash = bytes.withUnsafeBytes { hasher.hash($0) }
    // Taken out while it is changed, so that the value is changed in place.
    var chain = entries.removeValue(forKey: hash) ?? []
    let place = chain.firstIndex { $0.name == bytes }
    var value = place.map { chain.remove(at: $0).value }
    if place != nil { count -= 1 }
    change(&value)
    if let value {
      chain.append(Entry(name: bytes, value: value))
      count += 1
    }
    if !chain.isEmpty { entries[hash] = chain }
  }
}
