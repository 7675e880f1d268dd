// The gateway's own events as clients read them.

import Foundation
import Kit
import Testing

@testable import Connections

@Suite("Own events")
struct OwnEventsTests {
  private static let stamp = Stamp(
    unixMs: 1_772_323_199_042, high: 0x1234_5678_9ABC_DEF0, low: 0xFEDC_BA98_7654_3210)

  /// The envelope of every own event around `data`.
  private func text(_ type: String, _ data: String) -> String {
    #"{"specversion":"1.0","type":"\#(type)","source":"rig","id":"12345678-9abc-4ef0-bedc-ba9876543210","#
      + #""time":"2026-02-28T23:59:59.042Z","data":\#(data)}"#
  }

  @Test("have the form of the contract")
  func forms() {
    let subscriptions = [
      Subscription(eventType: .exact("greeting")),
      Subscription(
        eventType: .prefix("com."), oneOf: [["name": .string("John"), "a": .bool(true)], ["b": .null]]),
    ]
    let list =
      #"[{"eventType":"greeting","oneOf":[]},{"eventType":"com.*","oneOf":[{"a":true,"name":"John"},{"b":null}]}]"#
    let cases: [(OwnEvent, String, String)] = [
      (
        OwnEvents.connectionCreate(token: "abc", errors: [], stamp: Self.stamp), "rig.connection.create",
        #"{"connection_token":"abc","errors":[]}"#
      ),
      (
        OwnEvents.connectionCreate(token: "abc", errors: ["a \"b\"", "c"], stamp: Self.stamp),
        "rig.connection.create",
        #"{"connection_token":"abc","errors":["a \"b\"","c"]}"#
      ),
      (OwnEvents.subscriptionsSet([], stamp: Self.stamp), "rig.subscriptions_set", "[]"),
      (OwnEvents.subscriptionsSet(subscriptions, stamp: Self.stamp), "rig.subscriptions_set", list),
      (
        OwnEvents.farewell(.slowConsumer, stamp: Self.stamp), "rig.server_closing",
        #"{"reason":"slow consumer"}"#
      ),
      (
        OwnEvents.eventsLost(count: 17, reason: "full", stamp: Self.stamp), "rig.events_lost",
        #"{"count":17,"reason":"full"}"#
      ),
      (
        OwnEvents.eventsLost(count: nil, reason: "gone", stamp: Self.stamp), "rig.events_lost",
        #"{"count":null,"reason":"gone"}"#
      ),
      (
        OwnEvents.error(id: "1", status: 400, detail: "no\nthing", stamp: Self.stamp), "rig.error",
        #"{"id":"1","status":400,"detail":"no\nthing"}"#
      ),
      (
        OwnEvents.error(id: nil, status: 400, detail: "x", stamp: Self.stamp), "rig.error",
        #"{"status":400,"detail":"x"}"#
      ),
      (OwnEvents.accepted(id: "e1", stamp: Self.stamp), "rig.accepted", #"{"id":"e1"}"#),
    ]
    for (event, type, data) in cases {
      #expect(event.type == type)
      #expect(String(decoding: event.json, as: UTF8.self) == text(type, data))
    }
  }

  @Test("stay one line of valid JSON whatever texts are put into them")
  func escaping() throws {
    let nasty = String(decoding: 0...127, as: UTF8.self) + "\u{85}\u{2028}é🐟\"\\"
    let event = OwnEvents.error(id: nasty, status: 400, detail: nasty, stamp: Self.stamp)
    #expect(!event.json.contains { $0 < 0x20 })
    let object = try #require(JSONSerialization.jsonObject(with: Data(event.json)) as? [String: Any])
    let data = try #require(object["data"] as? [String: Any])
    #expect(data["id"] as? String == nasty)
    #expect(data["detail"] as? String == nasty)
  }

  @Test("are told apart by random ids and carry the present time")
  func now() throws {
    let before = Date()
    let stamps = (0..<100).map { _ in Stamp.now() }
    #expect(Set(stamps.map(\.uuid)).count == 100)
    for stamp in stamps {
      #expect(UUID(uuidString: stamp.uuid) != nil)
      #expect(abs(Double(stamp.unixMs) / 1000 - before.timeIntervalSince1970) < 60)
    }
  }

  @Test("close with a code that says the same as the reason")
  func closing() {
    let codes = ClosingReason.allCases.map { ($0.rawValue, $0.webSocketCode.rawValue) }
    let reasons = [
      "drain", "shutdown", "slow consumer", "token expired", "session killed", "closed by operator",
      "too many connections of this user", "too many connections from this address",
    ]
    #expect(codes.map(\.0) == reasons)
    #expect(codes.map(\.1) == [1012, 1001, 1013, 1008, 1008, 1008, 1008, 1008])
  }
}

@Suite("Stamp")
struct StampTests {
  @Test(
    "writes times as RFC 3339",
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
      (951_782_400_000, "2000-02-29T00:00:00.000Z"),
      (951_868_799_999, "2000-02-29T23:59:59.999Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
      (253_402_300_799_999, "9999-12-31T23:59:59.999Z"), (.max, "9999-12-31T23:59:59.999Z"),
      (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"), (.min, "0000-01-01T00:00:00.000Z"),
    ] as [(Int64, String)])
  func times(unixMs: Int64, text: String) {
    #expect(Stamp(unixMs: unixMs, high: 0, low: 0).rfc3339 == text)
  }

  @Test("agrees with Foundation on every day of four centuries")
  func calendar() {
    let formatter = ISO8601DateFormatter()
    formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    for day in stride(from: Int64(-100_000), to: 100_000, by: 17) {
      let seconds = day * 86_400 + 47_003
      let expected = formatter.string(from: Date(timeIntervalSince1970: Double(seconds)))
      #expect(Stamp(unixMs: seconds * 1000, high: 0, low: 0).rfc3339 == expected)
    }
  }

  @Test("is a UUID of version 4 for all bits")
  func uuid() {
    #expect(Stamp(unixMs: 0, high: 0, low: 0).uuid == "00000000-0000-4000-8000-000000000000")
    #expect(Stamp(unixMs: 0, high: .max, low: .max).uuid == "ffffffff-ffff-4fff-bfff-ffffffffffff")
  }
}
