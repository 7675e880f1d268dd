// Who may use the management port: with a MANAGEMENT_TOKEN whoever shows it as a bearer token (RFC 6750), else everybody.
//
//   authorization: Bearer TOKEN        one right token among several is enough
//   none, or none that is right        401, www-authenticate: Bearer
//
// The comparison takes as long for a token that is nearly right as for one that is wholly wrong. No message names a token.

import HTTP
import Identity
import Settings

struct ManagementGuard {
  private let token: [UInt8]?

  /// - Parameter token: nil: nothing is demanded.
  init(_ token: Secret?) { self.token = token.map { Array($0.revealed.utf8) } }

  /// The answer to a request with these values of `Authorization` fields; nil: it may be carried out.
  func refusal(of fields: [String]) -> HTTPResponse? {
    guard let token else { return nil }
    let given: [String]
    do throws(TokenError) {
      given = try BearerTokens.parse(fields)
    } catch {
      return Self.unauthorized("header authorization: \(error)", #"Bearer error="invalid_request""#)
    }
    guard !given.isEmpty else {
      return Self.unauthorized(
        "header authorization has no bearer token, expected MANAGEMENT_TOKEN", "Bearer")
    }
    // Every one is compared, wherever the right one stands.
    var isRight = false
    for candidate in given where Self.areEqual(Array(candidate.utf8), token) { isRight = true }
    guard !isRight else { return nil }
    return Self.unauthorized(
      "header authorization: the token is not MANAGEMENT_TOKEN", #"Bearer error="invalid_token""#)
  }

  private static func unauthorized(_ detail: String, _ challenge: String) -> HTTPResponse {
    .problem(.unauthorized, detail, headers: ["www-authenticate": challenge])
  }

  /// Time depends on the length of `given` alone, which its sender knows.
  private static func areEqual(_ given: [UInt8], _ token: [UInt8]) -> Bool {
    var difference = given.count ^ token.count
    for index in given.indices { difference |= Int(given[index] ^ token[index % token.count]) }
    return difference == 0
  }
}
