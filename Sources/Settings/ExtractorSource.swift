// Where the extractor table may stand: as JSON text, as an object of the configuration file, or in a file of its own
// whose path is given.

import Foundation

enum ExtractorSource {
  /// The table that `node` holds or points to. Never an empty table because something couldn't be read.
  static func table(_ node: SourceNode) throws(ValueProblems) -> ExtractorTable {
    guard let text = node.text else { return try ExtractorTable(node: node) }
    if ValueForm.trimmed(text[...]).hasPrefix("{") { return try ExtractorTable(text: text) }
    let path = ValueForm.trimmed(text[...])
    let content: String
    do {
      content = try TextFile.read(path)
    } catch {
      throw ValueProblems("\(error.message); expected JSON text beginning with '{', or the path of a file")
    }
    do {
      return try ExtractorTable(text: content)
    } catch {
      throw ValueProblems(
        error.problems.map { problem in ValueProblem("\(place(problem, in: path)): \(problem.message)") })
    }
  }

  private static func place(_ problem: ValueProblem, in path: String) -> String {
    guard let line = problem.line else { return path }
    return "\(path):\(line):\(problem.column ?? 1)"
  }
}
