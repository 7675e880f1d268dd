// rig-control --check-config …: what of the configuration only a worker can judge, for `rig-supervisor --check-config`, which
// turns itself into this program (the supervisor has no OpenSSL). The settings themselves have been checked by then.

import Glibc
import HTTP
import Settings

enum ConfigurationCheck {
  static let option = "--check-config"
  private static let isValid: CInt = 0
  /// EX_CONFIG
  private static let isWrong: CInt = 78

  /// Says what is wrong and returns the exit status.
  static func run(_ arguments: [String], _ environment: [String: String]) -> CInt {
    do {
      let settings = try Settings.load(arguments: arguments, environment: environment).settings
      if settings.hasTLS { _ = try TLSFront(settings: settings) }
    } catch {
      var line = "\(error)\n"
      line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
      return isWrong
    }
    print("configuration is valid")
    return isValid
  }
}
