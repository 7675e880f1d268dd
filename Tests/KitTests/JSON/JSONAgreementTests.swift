// The scanner and Foundation's parser are two readings of one standard: they must agree on damaged texts. Where
// Foundation is known to be another matter, the claim leaves out: encodings other than UTF-8 (it guesses them from zeros and
// byte order marks), surrogates without partner (it refuses them), a comma behind the last element (it accepts it), numbers beyond a double, and
// deep nesting.

import Foundation
import TestSupport
import Testing

@testable import Kit

@Suite("JSON scanner and Foundation")
struct JSONAgreementTests {
  private static let seeds = [
    #"{"specversion":"1.0","type":"greeting","source":"s","id":"1","data":{"name":"Frank","n":[1,2.5,-3e2]}}"#,
    #"[{"a":null,"b":true,"c":false},[],{},"text with \"escapes\" \\ \/ \b\f\n\r\t",0,-0,10]"#,
    #" { "x" : [ 1 , 2 , { "y" : "12345678901234567890" } ] , "z" : "ä ö" } "#,
  ]
  private static let alphabet =
    Array(#"{}[]":,\/0123456789+-.eEtrufalsn"x "#.utf8) + [0x09, 0x0A, 0x0D, 0x01, 0x1F, 0x7F]

  private func foundationAccepts(_ text: [UInt8]) -> Bool {
    (try? JSONSerialization.jsonObject(with: Data(text), options: [.fragmentsAllowed])) != nil
  }

  private func mutated(_ text: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
    var text = text
    for _ in 0..<Int.random(in: 1...3, using: &random) where !text.isEmpty {
      let place = Int.random(in: text.indices, using: &random)
      let byte = Self.alphabet.randomElement(using: &random) ?? 0x20
      switch Int.random(in: 0..<4, using: &random) {
      case 0: text[place] = byte
      case 1: text.insert(byte, at: place)
      case 2: text.remove(at: place)
      default:
        let end = min(text.count, place + Int.random(in: 1...6, using: &random))
        text.removeSubrange(place..<end)
      }
    }
    return text
  }

  /// Whether both can be asked: see above.
  private func isCommonGround(_ text: [UInt8]) -> Bool {
    let string = String(decoding: text, as: UTF8.self)
    return !text.contains(0) && !text.isEmpty && !string.contains(#"\u"#)
      && !string.contains(#/[eE][+\-]?[0-9]{2}/#) && !string.contains(#/,[ \t\r\n]*[\]}]/#)
  }

  @Test("agree on random mutations of valid texts", arguments: 1...4 as ClosedRange<UInt64>)
  func agreement(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var accepted = 0
    for _ in 0..<5000 {
      let original = Array((Self.seeds.randomElement(using: &random) ?? "").utf8)
      let text = mutated(original, &random)
      guard isCommonGround(text) else { continue }
      let isAccepted = refusal(text) == nil
      if isAccepted { accepted += 1 }
      #expect(isAccepted == foundationAccepts(text), "\(String(decoding: text, as: UTF8.self))")
    }
    #expect(accepted > 100, "both answers must have come up")
  }
}
