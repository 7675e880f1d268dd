// What several tests expect in the same words.

import Testing

/// An error answer in the form of RFC 9457 whose detail names `parts`.
func expectProblem(
  _ answer: HTTPAnswer, _ status: Int, naming parts: String...,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  #expect(answer.status == status, "\(answer.text)", sourceLocation: sourceLocation)
  #expect(
    answer["content-type"]?.hasPrefix("application/problem+json") == true,
    "\(answer["content-type"] ?? "none")",
    sourceLocation: sourceLocation)
  let json = try answer.json
  #expect(json["status"]?.integer == status, sourceLocation: sourceLocation)
  #expect(json["type"]?.string != nil, sourceLocation: sourceLocation)
  #expect(json["title"]?.string?.isEmpty == false, sourceLocation: sourceLocation)
  let detail = json["detail"]?.string ?? ""
  for part in parts { #expect(detail.contains(part), "detail: \(detail)", sourceLocation: sourceLocation) }
}
