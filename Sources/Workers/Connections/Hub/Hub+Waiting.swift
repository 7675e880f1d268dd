// Requests that can't be answered before somebody else has been asked.

import HTTP
import Kit
import NIOCore

extension Hub {
  /// The reply of `granted`, once the service has allowed it; at once if there is nothing to ask.
  func whenAllowed(_ call: ServiceCall?, on loop: EventLoop, _ granted: @escaping () -> Reply) -> Reply {
    guard let call else { return granted() }
    return Deferred.reply(on: loop) { complete in
      checks.ask(call, nowNs: clock.nowNs) { [unowned self] refusal in
        clock.refresh()
        complete(refusal.map { .response($0.response) } ?? granted())
      }
    }
  }

  /// The answer to a refused request: at once, or, if the key of its token may be on its way, what `again` says when the keys
  /// have come.
  func refusal(_ error: RefusedRequest, on loop: EventLoop, again: @escaping () -> Reply) -> Reply {
    guard let set = error.awaitedKeySet else { return .response(error.response) }
    return Deferred.reply(on: loop) { complete in
      var isGivenUp = false
      authorizer.authority.whenKeySetIsThere(set) { [unowned self] in
        guard !isGivenUp else { return }
        clock.refresh()
        complete(again())
      }
      return { isGivenUp = true }
    }
  }
}
