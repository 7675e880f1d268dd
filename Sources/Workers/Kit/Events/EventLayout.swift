// An event (record type 1) or a gap (2) as a record of an event ring, format 1, little endian:
//
//    0  format = 1, 1 byte   flags, 1   fields, 2 (number)         length of type, 4
//    8  accepted at, 8 bytes (ns of CLOCK_MONOTONIC)
//   16  expires at, 8 bytes (ms since 1970; only with flag 2)
//   24  length of source, 4       length of id, 4
//   32  lengths of traceparent, tracestate, log, 2 bytes each      users, 2 (number)
//   40  partition, 4              length of json, 4
//   48  offset, 8
//   56  type | source | id | traceparent | tracestate | log
//       users:   length, 4 | name             … one after the other
//       fields:  length of name, 2 | length of value, 4 | name | value as ScalarValue encodes it
//       fields of later releases (FieldCoding): passed over
//       json
//
//   log, partition and offset are the origin: with flag 4 in Kafka, and log is the topic; with flag 8 log begins with the kind of
//   source, 2 bytes (EventOrigin.Source), and the topic follows. Releases that don't know flag 8 see no origin.
//
//   flags: 1 plain message, 2 expires, 4 came from Kafka, 8 came from another source; others are of later releases and passed over

enum EventLayout {
  static let format: UInt8 = 1
  static let headerBytes = 56

  enum Flag {
    static let plainMessage: UInt8 = 1
    static let expires: UInt8 = 2
    static let kafkaOrigin: UInt8 = 4
    static let otherOrigin: UInt8 = 8
  }

  static let formatOffset = 0
  static let flagsOffset = 1
  static let fieldCountOffset = 2
  static let typeLengthOffset = 4
  static let acceptedOffset = 8
  static let expiresOffset = 16
  static let sourceLengthOffset = 24
  static let idLengthOffset = 28
  static let traceparentLengthOffset = 32
  static let tracestateLengthOffset = 34
  static let logLengthOffset = 36
  static let userCountOffset = 38
  static let partitionOffset = 40
  static let jsonLengthOffset = 44
  static let originOffsetOffset = 48

  static let originSourceBytes = 2
  static let userHeaderBytes = 4
  static let fieldHeaderBytes = 6
}
