// Families as text, in both formats.

import Testing

@testable import Control

@Suite struct ExpositionTests {
  private func text(_ families: [MetricFamily], _ format: ExpositionFormat) -> String {
    String(decoding: Exposition.text(families, format), as: UTF8.self)
  }

  private let families = [
    MetricFamily(
      name: "rig_connections", kind: .gauge, samples: [.init(labels: #"transport="sse""#, value: .integer(3))]
    ),
    MetricFamily(
      name: "rig_delivery_latency_seconds", kind: .histogram,
      samples: [
        .init(suffix: "_bucket", labels: #"le="+Inf""#, value: .integer(2)),
        .init(suffix: "_sum", labels: "", value: .real(0.25)),
        .init(suffix: "_count", labels: "", value: .integer(2)),
      ]),
    MetricFamily(
      name: "rig_slow_consumers_total", kind: .counter, samples: [.init(labels: "", value: .integer(9))]),
  ]

  @Test("The text format of Prometheus")
  func prometheus() {
    #expect(
      text(families, .prometheus) == """
        # HELP rig_connections Connections of clients open now, by transport.
        # TYPE rig_connections gauge
        rig_connections{transport="sse"} 3
        # HELP rig_delivery_latency_seconds Time from an event's acceptance until it is written to a client.
        # TYPE rig_delivery_latency_seconds histogram
        rig_delivery_latency_seconds_bucket{le="+Inf"} 2
        rig_delivery_latency_seconds_sum 0.25
        rig_delivery_latency_seconds_count 2
        # HELP rig_slow_consumers_total Connections closed because their client took nothing for SLOW_CONSUMER_S, or less than the log holds.
        # TYPE rig_slow_consumers_total counter
        rig_slow_consumers_total 9

        """)
  }

  @Test("OpenMetrics names a counter's family without _total, and ends with EOF")
  func openMetrics() {
    let text = text(families, .openMetrics)
    #expect(text.contains("# TYPE rig_slow_consumers counter\nrig_slow_consumers_total 9\n"))
    #expect(text.contains("# TYPE rig_delivery_latency_seconds histogram\n"))
    #expect(text.hasSuffix("9\n# EOF\n"))
  }

  @Test("A counter that can't be one in OpenMetrics keeps its name there, without a type")
  func odd() {
    let families = [
      MetricFamily(name: "a", kind: .gauge, samples: [.init(labels: "", value: .integer(1))]),
      MetricFamily(name: "a_total", kind: .counter, samples: [.init(labels: "", value: .integer(2))]),
      MetricFamily(name: "b", kind: .counter, samples: [.init(labels: "", value: .integer(3))]),
    ]
    let open = text(families, .openMetrics)
    #expect(open.contains("# TYPE a gauge\na 1\n"))
    #expect(open.contains("# TYPE a_total unknown\na_total 2\n"))
    #expect(open.contains("# TYPE b unknown\nb 3\n"))
    #expect(text(families, .prometheus).contains("# TYPE a_total counter\na_total 2\n"))
  }

  @Test("Every help text is one line and says something")
  func help() {
    #expect(HelpTexts.text(for: "never_heard_of") == HelpTexts.unknown)
    for (name, text) in HelpTexts.texts {
      #expect(!text.isEmpty && !text.contains("\n"), "\(name)")
      #expect(SeriesText(name)?.labels.isEmpty == true, "\(name)")
    }
  }

  @Test(
    "Values are written as both formats read them",
    arguments: [
      (SampleValue.integer(.min), "-9223372036854775808"), (.real(0.1), "0.1"), (.real(2), "2.0"),
      (.real(1e-9), "1e-09"),
      (.real(.nan), "NaN"), (.real(.infinity), "+Inf"), (.real(-.infinity), "-Inf"),
    ])
  func values(_ value: SampleValue, _ text: String) {
    #expect(value.text == text)
  }

  @Test(
    "OpenMetrics goes to those who ask for it by name",
    arguments: [
      ([], false), (["*/*"], false), (["text/plain"], false), (["application/json"], false), ([""], false),
      (["application/openmetrics-text"], true), (["Application/OpenMetrics-Text; Version=1.0.0"], true),
      (["application/openmetrics-text;version=\"1.0.0\""], true),
      (["application/openmetrics-text;version=2.0.0"], false),
      (["application/openmetrics-text;q=0"], false),
      (["text/plain;q=0.9,application/openmetrics-text;q=0.5"], false),
      (["text/plain;q=0.5, application/openmetrics-text; q=0.5"], true),
      (["text/plain;q=0.2", "application/openmetrics-text"], true),
      (["application/openmetrics-text;q=much"], true),
      (["application/openmetrics-textual,;;,=;q=,"], false),
      (
        [
          "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            + "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            + "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ], true
      ),
    ] as [([String], Bool)])
  func negotiation(_ accept: [String], _ isOpenMetrics: Bool) {
    #expect(ExpositionFormat(accept: accept) == (isOpenMetrics ? .openMetrics : .prometheus))
  }
}
