// A JWK set from its URL, by the proxy workers.

import Kit
import Links

extension CallClient {
  /// Fetches a set of JWT_JWKS, by its place in the list. `body` is called once: with the set's contents, or why it can't be
  /// had.
  public func fetchKeySet(_ index: Int, _ body: @escaping (Result<[UInt8], UnusableKeys>) -> Void) {
    call(ServiceCall(.keySet, index: UInt16(clamping: index)), nowNs: MonotonicTime.now()) { outcome in
      switch outcome {
      case .answered(200...299, let contents): body(.success(contents))
      case .answered(let status, _): body(.failure(UnusableKeys("its URL answers with status \(status)")))
      case .timedOut: body(.failure(UnusableKeys("its URL doesn't answer in time")))
      case .unreachable(let reason), .busy(let reason): body(.failure(UnusableKeys(reason)))
      }
    }
  }
}
