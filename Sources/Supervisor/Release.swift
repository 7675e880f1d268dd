// Which version this is.

enum Release {
  /// Of the whole gateway: supervisor and workers are released together.
  static let version = "0.1.0"
}
