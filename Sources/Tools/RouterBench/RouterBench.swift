// Measures finding the endpoint of a request among many API definitions, on one core, by thread CPU time.
//
//   rig-routerbench [--definitions N] [--seconds S]
//
// Each definition has two endpoints, one with a group that is put into the rewritten path.
import APIs
import Glibc
import Kit

@main
struct RouterBench {
  static func main() throws {
    var seconds = 1.0
    var count = 10_000
    var arguments = CommandLine.arguments.dropFirst()
    while let name = arguments.popFirst() {
      guard let value = arguments.popFirst().flatMap(Double.init), value > 0, value <= 1e6 else {
        throw Failure("\(name) needs a number above 0")
      }
      switch name {
      case "--definitions": count = Int(value)
      case "--seconds": seconds = value
      default: throw Failure("\(name) is unknown, expected --definitions or --seconds")
      }
    }
    var table = APITable()
    for number in 0..<count { try define(number, in: &table) }
    let definitions = table.all
    var router = APIRouter(definitions)
    let making = nanosecondsPerCall(seconds) { router = APIRouter(definitions) }
    let known = (0..<64).map { "/service-\($0 * count / 64)/items/4711/parts/12" }
    var number = 0
    var found = 0
    let matching = nanosecondsPerCall(seconds) {
      if case .match = router.match(method: "GET", path: known[number & 63]) { found += 1 }
      number += 1
    }
    guard found == number else { throw Failure("\(number - found) of \(number) paths were not found") }
    let unknown = nanosecondsPerCall(seconds) {
      if case .match = router.match(method: "GET", path: "/nowhere/items/4711") { found += 1 }
    }
    try measureReadings(seconds, table)
    let title = "among \(count) definitions"
    print("matching and rewriting a path with two groups \(title): \(microseconds(matching)) µs")
    print("unknown path \(title): \(microseconds(unknown)) µs")
    print("making the router of \(count) definitions anew: \(microseconds(making / 1000)) ms")
  }

  /// Paths that a service could read in several ways, beside a secured endpoint.
  private static func measureReadings(_ seconds: Double, _ table: APITable) throws {
    var table = table
    let json = #"""
      {"id":"admin","name":"admin","auth_type":"jwt","version_data":{"default":{"endpoints":[
        {"id":"below","method":"GET","path_regex":"/admin/.*","secured":true},
        {"id":"rest","method":"GET","path_regex":"/.*"}]}},
       "proxy":{"target_url":"http://localhost","port":3000}}
      """#
    let stamp = APIChange(timestamp: Stamp.now().rfc3339, nodeName: "bench")
    try Array(json.utf8).withUnsafeBytes { _ = try table.create($0, stamp) }
    let router = table.router()
    let long = 16_000
    let paths = [
      ("ordinary", "/public/items/4711"), ("last slash", "/public/items/4711/"),
      ("one escape", "/public/items/a%20b"), ("many kinds", "/public/a%2Fb%20c;v=1//d/"),
      ("16 kB, ordinary", "/" + String(repeating: "x", count: long)),
      ("16 kB of %2e", "/" + String(repeating: "%2e", count: long / 3)),
      ("16 kB of /", String(repeating: "/", count: long)),
      ("16 kB of every kind", String(repeating: #"/a%2f\b;c%252f%3f"#, count: long / 17)),
      ("2 kB of every kind", String(repeating: #"/a%2f\b;c%252f%3f"#, count: 120)),
    ]
    for (name, path) in paths {
      let judging = nanosecondsPerCall(seconds / 4) { _ = router.match(method: "GET", path: path) }
      print("judging a path, \(name): \(microseconds(judging)) µs")
    }
  }

  private static func define(_ number: Int, in table: inout APITable) throws {
    let name = "service-\(number)"
    let json = #"""
      {"id":"\#(name)","name":"\#(name)","version_data":{"default":{"endpoints":[
        {"id":"part","method":"GET","path_regex":"/\#(name)/items/([^/]+)/parts/([^/]+)","path_replacement":"/v1/\\1/\\2"},
        {"id":"make","method":"POST","path_regex":"/\#(name)/items"}]}},
       "proxy":{"target_url":"http://localhost","port":3000}}
      """#
    let stamp = APIChange(timestamp: Stamp.now().rfc3339, nodeName: "bench")
    try Array(json.utf8).withUnsafeBytes { _ = try table.create($0, stamp) }
  }

  private static func nanosecondsPerCall(_ seconds: Double, _ body: () -> Void) -> Double {
    var calls = 0
    let begin = TurnMeter.threadCPUTime()
    var now = begin
    repeat {
      body()
      calls += 1
      // Asking for the time costs as much as a match.
      if calls < 64 || calls & 63 == 0 { now = TurnMeter.threadCPUTime() }
    } while Double(now - begin) < seconds * 1e9
    return Double(now - begin) / Double(calls)
  }

  private static func microseconds(_ nanoseconds: Double) -> String {
    let hundredths = Int((nanoseconds / 10).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
  }
}
