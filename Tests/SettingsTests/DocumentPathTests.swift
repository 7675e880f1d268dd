// The documents against the tree: each file or folder that they name is there. A file that is moved takes its mentions along.

import Foundation
import TestSupport
import Testing

/// A document, and what it names of a tree of files.
private struct Document {
  let text: String

  private static let folders = ["Sources/", "Tests/", "docs/", "scripts/", "benchmarks/"]

  /// Paths that begin in one of these folders, in code and out of it.
  var paths: [String] {
    text.split { !Self.isOfPath($0) }
      .filter { word in Self.folders.contains { word.hasPrefix($0) } }
      .map { String($0.hasSuffix(".") ? $0.dropLast() : $0) }
  }

  /// Everything between backticks that has the form of a path in a tree: a slash that isn't its first sign, or a file name's end.
  /// In fenced blocks there are none.
  var codePaths: [String] {
    var isFenced = false
    return text.split(separator: "\n", omittingEmptySubsequences: false).flatMap { line -> [String] in
      if line.hasPrefix("```") { isFenced.toggle() }
      guard !isFenced, !line.hasPrefix("```") else { return [] }
      let parts = line.split(separator: "`", omittingEmptySubsequences: false)
      return parts.indices.filter { $0 % 2 == 1 }.map { String(parts[$0]) }.filter(Self.isPath)
    }
  }

  /// Those that `root` doesn't have.
  static func missing(_ paths: [String], in root: String) -> [String] {
    paths.filter { !FileManager.default.fileExists(atPath: "\(root)/\($0)") }
  }

  private static func isOfPath(_ sign: Character) -> Bool {
    sign.isLetter || sign.isNumber || "/._+-".contains(sign)
  }

  private static func isPath(_ code: String) -> Bool {
    guard !code.hasPrefix("/"), !code.contains(where: \.isWhitespace) else { return false }
    return code.contains("/") || [".swift", ".md", ".py", ".h", ".c"].contains { code.hasSuffix($0) }
  }
}

@Suite("15.11 Paths in documents")
struct DocumentPathTests {
  private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path
  private static let architecture = "docs/architecture.md"

  private static func document(_ path: String) throws -> Document {
    Document(text: try String(contentsOfFile: "\(root)/\(path)", encoding: .utf8))
  }

  @Test("15.11 Each file and folder that the README and the documents name is there")
  func documents() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: "\(Self.root)/docs")
    let pages = names.filter { $0.hasSuffix(".md") }.map { "docs/\($0)" }
    #expect(pages.contains(Self.architecture))
    for page in pages + ["README.md"] {
      let missing = Document.missing(try Self.document(page).paths, in: Self.root)
      #expect(missing.isEmpty, "\(page)")
    }
  }

  @Test("15.11 The architecture names everything by its path from the root, and it is there")
  func architecture() throws {
    let document = try Self.document(Self.architecture)
    #expect(document.codePaths.count > 100)
    let missing = Document.missing(document.codePaths, in: Self.root)
    #expect(missing.isEmpty)
    let isLinked = try Self.document("README.md").text.contains("](\(Self.architecture))")
    #expect(isLinked)
  }

  @Test("15.11 A name of what isn't there is found, wherever it stands")
  func mistakes() throws {
    let tree = try TestDirectory()
    try FileManager.default.createDirectory(atPath: tree.file("Sources"), withIntermediateDirectories: true)
    try Data().write(to: URL(fileURLWithPath: tree.file("Sources/A+B.swift")))
    let document = Document(
      text: """
        `Sources/A+B.swift`, `Sources/`, (see Sources/A+B.swift). https://a.example/docs/none ../docs/none
        `Sources/None.swift` and `Sources/A+B.swift/`, [a link](docs/none.md), `scripts/none --all`, `A+B.swift`
        ```
        Sources/Fenced ``` `/v3/none` `rig.none` `A/B`
        ```
        `Source/A.swift`
        """)
    #expect(
      Document.missing(document.paths, in: tree.path)
        == ["Sources/None.swift", "Sources/A+B.swift/", "docs/none.md", "scripts/none", "Sources/Fenced"])
    #expect(
      Document.missing(document.codePaths, in: tree.path)
        == ["Sources/None.swift", "Sources/A+B.swift/", "A+B.swift", "Source/A.swift"])
  }
}
