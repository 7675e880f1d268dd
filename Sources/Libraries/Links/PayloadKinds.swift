// Every kind of payload there is, in any conversation. Numbers are for ever: what is gone leaves its number unused.

extension PayloadKind {
  // Between connection workers (requests).
  public static let setSubscriptions = PayloadKind(1)
  public static let poll = PayloadKind(2)
  public static let cancelPoll = PayloadKind(3)
  public static let closeOldest = PayloadKind(4)
  public static let workerAnswer = PayloadKind(5)

  // Calls of services, and what came of them (calls, answers).
  public static let call = PayloadKind(16)
  public static let cancelCall = PayloadKind(17)
  public static let callOutcome = PayloadKind(18)

  // Proxied requests (calls, answers). 32, 34, 37, 38 and 41 had fields as lists of strings.
  public static let body = PayloadKind(33)
  public static let cancelExchange = PayloadKind(35)
  public static let credit = PayloadKind(36)
  public static let failed = PayloadKind(39)
  public static let limited = PayloadKind(40)
  public static let count = PayloadKind(42)
  public static let admitted = PayloadKind(43)
  public static let open = PayloadKind(44)
  public static let end = PayloadKind(45)
  public static let informed = PayloadKind(46)
  public static let answered = PayloadKind(47)
  public static let upgraded = PayloadKind(48)
  public static let responded = PayloadKind(49)

  // Records for Kafka, responses of services, questions about sessions (publications, responses).
  public static let publication = PayloadKind(64)
  public static let publicationOutcome = PayloadKind(65)
  public static let response = PayloadKind(66)
  public static let responseTaken = PayloadKind(67)
  public static let question = PayloadKind(68)
  public static let questionAnswer = PayloadKind(69)
}
