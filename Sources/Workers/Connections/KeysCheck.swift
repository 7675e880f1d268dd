// What a connection worker says of the configuration: certificates of the TLS ports, and keys of tokens.

import HTTP
import Identity
import Kit
import Settings

enum KeysCheck {
  static func findings(_ settings: Settings) -> ConfigurationFindings {
    var found = ConfigurationFindings()
    if settings.hasTLS { found.judge { _ = try TLSFront(settings: settings) } }
    ConfiguredVerifier.judge(settings, &found)
    return found
  }
}
