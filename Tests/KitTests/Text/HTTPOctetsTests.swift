// What octets are in messages, and the calendar: tables beside what the standards say.

import Foundation
import Testing

@testable import Kit

@Suite("15.10 Octets of messages")
struct HTTPOctetsTests {
  @Test("15.10 token characters are those of RFC 9110, of all octets")
  func tokens() {
    let characters = Set("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)
    for octet in UInt8.min...UInt8.max {
      #expect(HTTPOctets.isOfToken(octet) == characters.contains(octet), "\(octet)")
      #expect(HTTPOctets.isToken([octet]) == characters.contains(octet), "\(octet)")
    }
    #expect(!HTTPOctets.isToken([UInt8]()) && !HTTPOctets.isToken("a b".utf8))
  }

  @Test(
    "15.10 blanks and tabs go from both ends, and nothing else goes",
    arguments: [
      ("", ""), (" \t ", ""), ("a", "a"), (" a b\t", "a b"), ("\u{A0}a\n", "\u{A0}a\n"),
      (" \u{301}a ", "\u{301}a"),
    ])
  func trimming(text: String, trimmed: String) {
    #expect(Array(HTTPOctets.trimmed(text).utf8) == Array(trimmed.utf8))
    #expect(Array(HTTPOctets.trimmed(text[...]).utf8) == Array(trimmed.utf8))
    #expect(Array(HTTPOctets.trimmed(Array(text.utf8))) == Array(trimmed.utf8))
  }

  @Test("15.10 hexadecimal digits are those that a number is read from, of all octets")
  func hexadecimal() {
    for octet in UInt8.min...UInt8.max {
      let isDigit = octet < 0x80 && Character(Unicode.Scalar(octet)).isHexDigit
      let value = isDigit ? UInt8(String(Unicode.Scalar(octet)), radix: 16) : nil
      #expect(HTTPOctets.hexadecimal(octet) == value, "\(octet)")
      #expect(HTTPOctets.hexadecimalPair([0x30, octet]) == value)
      #expect(HTTPOctets.hexadecimalPair([octet]) == nil)
    }
    #expect((UInt8(0)..<16).map(HTTPOctets.hexadecimalDigit) == Array("0123456789abcdef".utf8))
  }

  @Test(
    "15.10 an escape is decoded once; what is none stays, and is told",
    arguments: [
      ("a%41b", "aAb", true), ("%2541", "%41", true), ("%", "%", false), ("%4", "%4", false),
      ("%4g%41", "%4gA", false), ("%%41", "%A", false), ("a+b", "a+b", true), ("%C3%A9", "é", true),
    ])
  func escapes(text: String, decoded: String, isWhole: Bool) {
    let result = HTTPOctets.percentDecoded(text.utf8)
    #expect(result.octets == Array(decoded.utf8) && result.isWhole == isWhole)
  }

  @Test("15.10 in a form + is a blank, and an escaped one is a +")
  func form() {
    #expect(HTTPOctets.percentDecoded("a+%2B".utf8, isForm: true).octets == Array("a +".utf8))
  }

  @Test("15.10 days from 1614 to 2517, and their numbers, are the calendar's")
  func calendar() throws {
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = try #require(TimeZone(identifier: "UTC"))
    for days in stride(from: Int64(-130_000), to: 200_000, by: 61) {
      let date = CivilDate(daysSinceEpoch: days)
      #expect(date.daysSinceEpoch == days)
      let parts = calendar.dateComponents(
        [.year, .month, .day], from: Date(timeIntervalSince1970: Double(days) * 86_400))
      #expect(parts.year.map(Int64.init) == date.year, "day \(days)")
      #expect(parts.month.map(Int64.init) == date.month, "day \(days)")
      #expect(parts.day.map(Int64.init) == date.day, "day \(days)")
    }
    for (year, days) in [(1900, 28), (2000, 29), (2024, 29), (2026, 28)] as [(Int64, Int64)] {
      let march = CivilDate(year: year, month: 3, day: 1).daysSinceEpoch
      #expect(CivilDate(daysSinceEpoch: march - 1) == CivilDate(year: year, month: 2, day: days))
    }
  }
}
