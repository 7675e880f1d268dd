// What the HTTP front counts, in the worker's status page.
//
//   rig_http_requests_total{port,status="2xx"}     answers by class
//   rig_http_accepted_total{port}                  connections accepted
//   rig_http_accept_exhausted_total{port}          accepts refused by the kernel for want of descriptors or memory
//   rig_http_refused_connections_total{port}       accepted, and closed at once: as many are open as may be
//   rig_http_timeouts_total{port}                  requests answered 408
//   rig_http_too_slow_total{port,direction}        bodies that came, or answers that were taken, below MIN_BODY_RATE
//   rig_http_open_connections{port}                open now, taken-over ones included
//   rig_http_http2_connections_total{port}         of those accepted, that turned out to speak HTTP/2
//   rig_http_http2_streams_total{port}             requests that came by HTTP/2
//   rig_http_http2_open_streams{port}              streams of HTTP/2 open now, taken-over ones included
//   rig_http_http2_malformed_total{port}           streams reset because of what the client sent

import IPC

/// Counters of one port. A status page that is full yields counters that count nothing.
public struct HTTPCounters {
  private let classes: [Metric?]
  let accepted: Metric?
  let exhausted: Metric?
  let refused: Metric?
  let timeouts: Metric?
  let slowRequests: Metric?
  let slowAnswers: Metric?
  let open: Metric?
  let http2Connections: Metric?
  let http2Streams: Metric?
  let openStreams: Metric?
  let malformedStreams: Metric?

  /// `port`: "inbound" or "management".
  public init(status: StatusPage, port: String) {
    let label = [("port", port)]
    classes = (1...5).map {
      status.metric(.counter, "rig_http_requests_total", labels: label + [("status", "\($0)xx")])
    }
    accepted = status.metric(.counter, "rig_http_accepted_total", labels: label)
    exhausted = status.metric(.counter, "rig_http_accept_exhausted_total", labels: label)
    refused = status.metric(.counter, "rig_http_refused_connections_total", labels: label)
    timeouts = status.metric(.counter, "rig_http_timeouts_total", labels: label)
    func slow(_ direction: String) -> Metric? {
      status.metric(.counter, "rig_http_too_slow_total", labels: [("direction", direction)] + label)
    }
    slowRequests = slow("request")
    slowAnswers = slow("response")
    open = status.metric(.gauge, "rig_http_open_connections", labels: label)
    http2Connections = status.metric(.counter, "rig_http_http2_connections_total", labels: label)
    http2Streams = status.metric(.counter, "rig_http_http2_streams_total", labels: label)
    openStreams = status.metric(.gauge, "rig_http_http2_open_streams", labels: label)
    malformedStreams = status.metric(.counter, "rig_http_http2_malformed_total", labels: label)
  }

  /// Counts an answer by the class of its status.
  func answered(_ code: UInt) {
    let index = Int(code / 100) - 1
    if classes.indices.contains(index) { classes[index]?.add(1) }
  }
}
