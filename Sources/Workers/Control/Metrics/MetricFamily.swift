// What an exposition consists of: families of samples, each with one name, one type and one help text.

/// The number of a sample.
enum SampleValue: Equatable {
  case integer(Int64)
  case real(Double)

  /// As both formats write it.
  var text: String {
    switch self {
    case .integer(let value): String(value)
    case .real(let value) where value.isFinite: String(value)
    case .real(let value) where value.isNaN: "NaN"
    case .real(let value): value < 0 ? "-Inf" : "+Inf"
    }
  }
}

/// All series of one name.
struct MetricFamily: Equatable {
  enum Kind: String {
    case counter, gauge, histogram
  }

  /// One line.
  struct Sample: Equatable {
    /// What stands behind the family's name: `_bucket`, `_sum`, `_count` or nothing. A counter's `_total` is
    /// part of the name.
    var suffix = ""
    /// Between the braces; empty: no labels.
    var labels: String
    var value: SampleValue
  }

  var name: String
  var kind: Kind
  var samples: [Sample]
}
