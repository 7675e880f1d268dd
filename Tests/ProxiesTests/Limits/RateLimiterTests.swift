// Token buckets and the table of them, with a time of their own.

import Testing

@testable import Proxies

@Suite("Rate limits")
struct RateLimiterTests {
  private static let second: UInt64 = 1_000_000_000

  @Test("A full bucket gives its burst, then one token each time one has come")
  func bucket() {
    let rate = TokenBucket.Rate(perSecond: 4, burst: 3)
    var bucket = TokenBucket(rate, nowNs: 7)
    for _ in 0..<3 { #expect(bucket.take(rate, nowNs: 7) == nil) }
    #expect(bucket.take(rate, nowNs: 7) == Self.second / 4)
    #expect(bucket.take(rate, nowNs: 7 + Self.second / 8) == Self.second / 8)
    #expect(bucket.take(rate, nowNs: 7 + Self.second / 4 - 1) == 1)
    #expect(bucket.take(rate, nowNs: 7 + Self.second / 4) == nil)
    #expect(bucket.take(rate, nowNs: 7 + Self.second / 4) == Self.second / 4)
  }

  @Test("It never holds more than its burst, and a clock that goes back gives nothing")
  func bounds() {
    let rate = TokenBucket.Rate(perSecond: 1_000_000, burst: 2)
    var bucket = TokenBucket(rate, nowNs: 0)
    #expect(bucket.take(rate, nowNs: .max / 2) == nil && bucket.take(rate, nowNs: .max / 2) == nil)
    #expect(bucket.take(rate, nowNs: .max / 2) == 1_000)
    #expect(bucket.take(rate, nowNs: 0) == 1_000)
    #expect(bucket.take(rate, nowNs: .max) == nil)
  }

  @Test(
    "Over a long time exactly as many requests pass as tokens came, however they are spread",
    arguments: [1, 3, 7, 50, 999_983])
  func exact(perSecond: Int) {
    let rate = TokenBucket.Rate(perSecond: perSecond, burst: 5)
    var bucket = TokenBucket(rate, nowNs: 0)
    var (passed, now, step) = (0, UInt64(0), UInt64(1))
    // Steps shorter than a token takes: every one of them is asked for too early.
    let shortest = max(1, Self.second / UInt64(perSecond) / 3)
    while now < 5 * Self.second, passed < 200_000 {
      if bucket.take(rate, nowNs: now) == nil { passed += 1 }
      step = step &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      now += 1 + (step >> 33) % shortest
    }
    let came = 5 + Int(now / 1_000) * perSecond / 1_000_000
    #expect(abs(passed - came) <= 1, "\(passed) of \(came)")
  }

  @Test("Every key has a bucket of its own")
  func keys() {
    var limiter = RateLimiter(TokenBucket.Rate(perSecond: 1, burst: 1))
    #expect(limiter.take("a", nowNs: 0) == nil && limiter.take("b", nowNs: 0) == nil)
    #expect(limiter.take("a", nowNs: 0) == Self.second && limiter.take("b", nowNs: 0) == Self.second)
    #expect(limiter.count == 2 && limiter.bytes > 0)
  }

  @Test("Buckets that are full again are forgotten, others aren't")
  func forgetting() {
    var limiter = RateLimiter(TokenBucket.Rate(perSecond: 1, burst: 10))
    _ = limiter.take("old", nowNs: 0)
    _ = limiter.take("young", nowNs: 6 * Self.second)
    limiter.forgetFull(nowNs: 10 * Self.second - 1)
    #expect(limiter.count == 2)
    limiter.forgetFull(nowNs: 10 * Self.second)
    #expect(limiter.count == 1)
    for _ in 0..<10 { #expect(limiter.take("young", nowNs: 10 * Self.second) == nil) }
    #expect(limiter.take("young", nowNs: 10 * Self.second) != nil, "it was kept as it was")
    limiter.forgetFull(nowNs: 20 * Self.second)
    #expect(limiter.count == 0 && limiter.bytes == 0)
  }

  @Test("A table without room forgets one that is full, or else the one that was used least recently")
  func room() {
    var limiter = RateLimiter(TokenBucket.Rate(perSecond: 1, burst: 2), limit: 3)
    for _ in 0..<2 { _ = limiter.take("empty", nowNs: 0) }
    _ = limiter.take("full", nowNs: Self.second / 2)
    _ = limiter.take("used", nowNs: Self.second)
    // "full" has its token back, "empty" hasn't.
    _ = limiter.take("new", nowNs: Self.second * 7 / 4)
    #expect(limiter.count == 3 && limiter.displaced == 0)
    #expect(limiter.take("empty", nowNs: Self.second * 7 / 4) == nil)
    #expect(limiter.take("empty", nowNs: Self.second * 7 / 4) != nil, "it wasn't forgotten")
    _ = limiter.take("used", nowNs: Self.second * 7 / 4)
    _ = limiter.take("newer", nowNs: Self.second * 7 / 4)
    #expect(limiter.displaced == 1)
    #expect(limiter.take("empty", nowNs: Self.second * 7 / 4) != nil, "another one had to go")
  }

  @Test("However many keys come, the table has its bound and stays in order")
  func many() {
    var limiter = RateLimiter(TokenBucket.Rate(perSecond: 1, burst: 1), limit: 100)
    for index in 0..<10_000 {
      #expect(limiter.take("key \(index)", nowNs: UInt64(index)) == nil)
      #expect(limiter.count <= 100)
    }
    #expect(limiter.displaced == 9_900)
    for index in 9_900..<10_000 { #expect(limiter.take("key \(index)", nowNs: 10_000) != nil) }
    limiter.forgetFull(nowNs: 2 * Self.second)
    #expect(limiter.count == 0)
  }
}
