// Requests that can't be answered before somebody else has been asked.

import HTTP
import Kit
import Links
import NIOCore

extension Hub {
  /// The reply of `granted`, once the service has allowed it; at once if there is nothing to ask. What waits ends with its tokens, and is
  /// judged again when it has been allowed.
  func whenAllowed(
    _ call: ServiceCall?, _ authorization: Authorization, on loop: EventLoop, _ granted: @escaping () -> Reply
  ) -> Reply {
    guard let call else { return granted() }
    return Deferred.reply(on: loop) { complete in
      var giveUp: (() -> Void)?
      let ticket = work.begin(authorization) { end in
        giveUp?()
        complete(.response(end.refusal.response))
      }
      giveUp = checks.ask(call, nowNs: clock.nowNs) { [unowned self] refusal in
        work.finish(ticket)
        clock.refresh()
        if let refusal { return complete(.response(refusal.response)) }
        do throws(RefusedRequest) {
          try authorizer.requireValid(authorization.credentials, unixMs: clock.unixMs)
          complete(granted())
        } catch {
          complete(.response(error.response))
        }
      }
      return { [work] in
        work.finish(ticket)
        giveUp?()
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
