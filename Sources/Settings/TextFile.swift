// Reads the small text files that a configuration refers to.

import Foundation

/// Reads files of bounded size.
public enum TextFile {
  /// A larger file is no configuration.
  private static let mostBytes = 4 * 1024 * 1024

  /// The content of the file at `path` as UTF-8. Throws what is wrong with it, naming the path.
  public static func read(_ path: String) throws(ValueProblem) -> String {
    guard let handle = FileHandle(forReadingAtPath: path) else {
      throw ValueProblem("'\(path)' can't be read: \(reason(path))")
    }
    defer { try? handle.close() }
    let data: Data
    do {
      data = try handle.read(upToCount: mostBytes + 1) ?? Data()
    } catch {
      throw ValueProblem("'\(path)' can't be read: it is no regular file")
    }
    guard data.count <= mostBytes else { throw ValueProblem("'\(path)' is larger than \(mostBytes) bytes") }
    guard let text = String(validating: data, as: UTF8.self) else {
      throw ValueProblem("'\(path)' is not UTF-8")
    }
    return text
  }

  private static func reason(_ path: String) -> String {
    FileManager.default.fileExists(atPath: path) ? "no permission" : "no such file"
  }
}
