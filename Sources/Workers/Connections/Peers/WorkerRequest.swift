// What connection workers ask each other: a client's PUT or poll may come in at any worker, and its connection live in another. Fields
// (FieldCoding), little endian:
//
//   setSubscriptions   serial, 8 bytes   change, data
//   poll               serial, 8 bytes   last event id, list of at most one   credentials, their list
//   cancelPoll         serial, 8 bytes
//   closeOldest        key, 8 bytes   opened before, 8 bytes
//   answer             status, 2 bytes   text   body, data
//   began              nothing

import Kit
import Links

/// A message to another connection worker.
enum WorkerRequest: Equatable, Sendable {
  /// Change connection `serial`. `change`: as `SubscriptionChange` encodes it, already accepted by the asking worker.
  case setSubscriptions(serial: UInt64, change: [UInt8])
  /// A poll of long-polling connection `serial`. `shown`: of its tokens, already verified by the asking worker.
  case poll(serial: UInt64, lastEventID: String?, shown: [Credential] = [])
  /// The client of the poll with this correlation has gone.
  case cancelPoll(serial: UInt64)
  /// There is one connection too many with this key of `ConnectionLimits`, and the oldest is the target's: it goes if it was
  /// opened before `since`, in ms. Nobody waits for an answer.
  case closeOldest(key: UInt64, since: UInt64)
  /// The answer to a message.
  case answer(WorkerAnswer)
  /// Another process has begun to serve the sender's place: what its predecessor was asked is to be asked again.
  case began
}

/// What came of a request, as HTTP says it.
struct WorkerAnswer: Equatable, Sendable {
  /// 204 subscriptions replaced, 200 poll answered, 410 no such connection (any more), 4xx/5xx otherwise.
  var status: UInt16
  /// For 200 the `last_event_id`; otherwise the problem's detail.
  var text: String
  /// For 200 the poll's body.
  var body: [UInt8] = []

  /// Whoever was asked hasn't the connection.
  var isOfNoConnection: Bool { status == 410 }
}

// MARK: Wire format

extension WorkerRequest: LinkPayload {
  var kind: PayloadKind {
    switch self {
    case .setSubscriptions: .setSubscriptions
    case .poll: .poll
    case .cancelPoll: .cancelPoll
    case .closeOldest: .closeOldest
    case .answer: .workerAnswer
    case .began: .workerBegan
    }
  }

  func append(to fields: inout FieldWriter) {
    switch self {
    case .setSubscriptions(let serial, let change):
      fields.append(serial)
      fields.append(change)
    case .poll(let serial, let lastEventID, let shown):
      fields.append(serial)
      fields.append(lastEventID.map { [$0] } ?? [])
      Credential.encode(shown, into: &fields)
    case .cancelPoll(let serial): fields.append(serial)
    case .closeOldest(let key, let since):
      fields.append(key)
      fields.append(since)
    case .answer(let answer):
      fields.append(answer.status)
      fields.append(answer.text)
      fields.append(answer.body)
    case .began: break
    }
  }

  init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    switch envelope.kind {
    case .workerAnswer:
      guard let status = fields.number(UInt16.self), (100...599).contains(status), let text = fields.text(),
        let body = fields.data()
      else { throw .malformed }
      self = .answer(WorkerAnswer(status: status, text: text, body: body))
    case .workerBegan: self = .began
    case .closeOldest:
      guard let key = fields.number(UInt64.self), let since = fields.number(UInt64.self) else {
        throw .malformed
      }
      self = .closeOldest(key: key, since: since)
    case .setSubscriptions, .poll, .cancelPoll:
      guard let serial = fields.number(UInt64.self) else { throw .malformed }
      self = try Self.aboutConnection(serial, envelope.kind, &fields)
    default: throw envelope.unknownKind
    }
  }

  private static func aboutConnection(
    _ serial: UInt64, _ kind: PayloadKind, _ fields: inout FieldReader
  ) throws(RecordFault) -> WorkerRequest {
    switch kind {
    case .setSubscriptions:
      guard let change = fields.data() else { throw .malformed }
      return .setSubscriptions(serial: serial, change: change)
    case .poll:
      guard let ids = fields.list(), ids.count <= 1, let shown = Credential.decodeList(&fields) else {
        throw .malformed
      }
      return .poll(serial: serial, lastEventID: ids.first, shown: shown)
    default: return .cancelPoll(serial: serial)
    }
  }
}
