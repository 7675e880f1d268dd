// docs/from-rig.md against the code: what it says of RIG's variables is so, and none is left out.

import Foundation
import Testing

@testable import Settings

@Suite("Variables of RIG")
struct FormerNameTests {
  /// What the page says of each variable of its table, by name.
  private static func rows() throws -> [String: String] {
    let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("docs/from-rig.md")
    let lines = try String(contentsOf: page, encoding: .utf8).split(separator: "\n")
    let table = try #require(lines.firstIndex(of: "| variable | here |"))
    var rows: [String: String] = [:]
    for line in lines[(table + 2)...] {
      let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      guard cells.count == 2 else { continue }
      rows[cells[0].replacing("`", with: "")] = cells[1]
    }
    return rows
  }

  @Test("14.D20 The migration page says of each variable what the code does")
  func page() throws {
    let rows = try Self.rows()
    #expect(rows.count > 80)
    for (name, said) in rows {
      let isFormer = FormerNames.advice[name] != nil
      #expect(isFormer == said.hasPrefix("without effect"), "\(name)")
      #expect(isFormer != (SettingKey.byName[name] != nil), "\(name)")
      let key = SettingKey.byName[name].map { SettingKey.all[$0] }
      if let key, key.name != name { #expect(said.contains("as `\(key.name)`"), "\(name)") }
    }
    for name in FormerNames.advice.keys { #expect(rows[name] != nil, "\(name) is missing") }
    for key in SettingKey.all {
      for alias in key.aliases { #expect(rows[alias] != nil, "\(alias) is missing") }
    }
  }
}
