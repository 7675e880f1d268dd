// Where records of proxied requests go. A sink never waits and never fails its caller: what it can't take it drops and counts.

/// Belongs to the worker's loop.
public protocol RequestLogSink: AnyObject {
  func log(_ record: RequestRecord)

  /// The worker ends: what is on its way may go out, for a moment.
  func close()
}
