// Sockets of a worker that is killed, from its death until they are somebody else's.

import CLinux
import Glibc
import TestSupport
import Testing

@testable import IPC
@testable import RingTool

@Suite struct KeeperTests {
  private static let greeting = "greeting: "

  @Test
  func `16.1 sockets of a killed worker come to its heir with the kernel's counts, and no client notices`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      // More than two messages take.
      let clients = try (0..<600).map { _ in try bench.connect("k") }
      clients[3].send("unread")
      try bench.killWorker()
      let taken = try bench.takeAll()
      #expect(taken.count == clients.count)
      #expect(Set(taken.compactMap(\.entry)).count == clients.count)
      for heirloom in taken {
        let entry = try #require(heirloom.entry)
        #expect(SocketCounts.cookie(heirloom.descriptor) == bench.cookie(entry))
        #expect(SocketCounts.written(heirloom.descriptor) == UInt64(Self.greeting.utf8.count))
        #expect(SocketCounts.read(heirloom.descriptor) == 0)
        Glibc.send(heirloom.descriptor, "go on", 5, 0)
      }
      try waitUntil("the keeper has ended") { !KeeperBench.lives(bench.keeper) }
      for client in clients {
        try waitUntil("a client has all") { client.peek(Self.greeting.utf8.count + 5) }
        #expect(client.received() == Self.greeting + "go on")
        #expect(!client.hasEnded)
      }
      // The keeper's copies are closed: the heir's is the last one.
      for heirloom in taken { close(heirloom.descriptor) }
      for client in clients { try waitUntil("a client sees the end") { client.hasEnded } }
    }
  }

  @Test func `16.1 what isn't kept ends at once, before an heir comes`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let kept = try bench.connect("k")
      let ending = try [bench.connect("t"), bench.connect("n")]
      try bench.killWorker()
      for client in ending { try waitUntil("it ends") { client.hasEnded } }
      #expect(!kept.hasEnded)
      let taken = try bench.takeAll()
      #expect(taken.map(\.port) == [kept.port])
    }
  }

  @Test func `16.1 an accepted socket that nobody has touched is passed, whatever its client has sent`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let silent = try bench.connect("u")
      let asking = try bench.connect("u")
      asking.send("GET / HTTP/1.1\r\n")
      let halfClosed = try bench.connect("u")
      halfClosed.send("GET / HTTP/1.1\r\n\r\n")
      shutdown(halfClosed.descriptor, CInt(SHUT_WR))
      // One that the worker has made itself isn't one that was accepted.
      try bench.order("o")
      try bench.killWorker()
      let taken = try bench.takeAll()
      #expect(taken.allSatisfy { $0.entry == nil })
      #expect(Set(taken.map(\.port)) == [silent.port, asking.port, halfClosed.port])
      for client in [silent, asking, halfClosed] { #expect(!client.hasEnded) }
      let request = try #require(taken.first { $0.port == asking.port })
      var bytes = [UInt8](repeating: 0, count: 64)
      let count = recv(request.descriptor, &bytes, bytes.count, 0)
      #expect(String(decoding: bytes.prefix(count), as: UTF8.self) == "GET / HTTP/1.1\r\n")
    }
  }

  @Test func `16.1 who adopts a socket and touches it can't have it passed on as untouched`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let client = try bench.connect("u")
      try bench.killWorker()
      let first = bench.heir()
      first.ask()
      guard case .batch(let sockets, _) = try bench.message(first) else { throw TestFailure("no batch") }
      Glibc.send(sockets[0].descriptor, "x", 1, 0)
      close(sockets[0].descriptor)
      // It died before it could say that it had taken it.
      let taken = try bench.takeAll(KeeperBench.incarnation + 2)
      #expect(taken.isEmpty)
      try waitUntil("it ends") { client.hasEnded }
    }
  }

  @Test func `16.1 a number that was closed and given to a stranger is nobody's`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let kept = try bench.connect("k")
      let replaced = try bench.connect("k")
      let stranger = try bench.connect("s")
      try bench.killWorker()
      try waitUntil("the stranger ends") { stranger.hasEnded }
      try waitUntil("the replaced one has ended") { replaced.hasEnded }
      #expect(try bench.takeAll().map(\.port) == [kept.port])
    }
  }

  @Test func `16.1 of two entries for one socket neither is believed, nor one for a listening socket`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try (0..<3).map { _ in try bench.connect("k") }
      // The second claims the first one's socket, cookie and all.
      rig_store_release(bench.state(1) + Int(RIG_LEDGER_COOKIE_AT), bench.cookie(0))
      rig_store_release(bench.state(1), rig_load_relaxed(bench.state(0)))
      let listening = try #require(SocketCounts.cookie(bench.listener.descriptor))
      rig_store_release(bench.state(3) + Int(RIG_LEDGER_COOKIE_AT), listening)
      rig_store_release(
        bench.state(3),
        rig_ledger_state(
          UInt32(KeeperBench.incarnation), UInt32(bench.listener.descriptor), 1, 0))
      rig_store_release(bench.ledger.base + Int(RIG_LEDGER_IN_USE_AT), 4)
      try bench.killWorker()
      for client in clients[0...1] { try waitUntil("it ends") { client.hasEnded } }
      #expect(try bench.takeAll().map(\.port) == [clients[2].port])
    }
  }

  @Test func `16.1 a ledger that says that more entries are used than there are is read to its end`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try (0..<2).map { _ in try bench.connect("k") }
      rig_store_release(bench.ledger.base + Int(RIG_LEDGER_IN_USE_AT), .max)
      try bench.killWorker()
      #expect(Set(try bench.takeAll().map(\.port)) == Set(clients.map(\.port)))
    }
  }

  @Test(arguments: [0, 1, 2, 3] as [UInt64])
  func `16.1 a scribbled ledger leads to closed connections, never to a wrong socket`(_ seed: UInt64)
    async throws
  {
    try await onOwnThread {
      var random = SplitMix(seed: seed)
      for _ in 0..<3 {
        let bench = try KeeperBench()
        let clients = try (0..<20).map { try bench.connect($0 % 4 == 3 ? "u" : "k") }
        let entries = UInt32(15)
        let cookies = Set((0..<entries).map { bench.cookie($0) })
        for _ in 0..<60 {
          // The header, the entries, and any number of used ones.
          let offset =
            random.next() % 4 == 0
            ? Int(random.next() % 264) : Int(RIG_LEDGER_PAGE) + Int(random.next() % UInt64(entries * 64))
          let byte = UInt8(truncatingIfNeeded: random.next())
          (bench.ledger.base + offset).storeBytes(of: byte, as: UInt8.self)
        }
        try bench.killWorker()
        var passed: Set<UInt16> = []
        for heirloom in try bench.takeAll() {
          let cookie = try #require(SocketCounts.cookie(heirloom.descriptor))
          if let entry = heirloom.entry {
            #expect(entry < 1024 && bench.cookie(entry) == cookie && cookies.contains(cookie))
          } else {
            #expect(SocketCounts.written(heirloom.descriptor) == 0)
          }
          #expect(passed.insert(heirloom.port).inserted)
        }
        for client in clients where !passed.contains(client.port) {
          try waitUntil("it ends") { client.hasEnded }
        }
        for client in clients where passed.contains(client.port) { #expect(!client.hasEnded) }
      }
    }
  }

  @Test func `16.1 an heir that dies before it has taken what it was given leaves it to the next one`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try (0..<600).map { _ in try bench.connect("k") }
      try bench.killWorker()
      let first = bench.heir()
      first.ask()
      var mine: Set<UInt16> = []
      guard case .batch(let taken, _) = try bench.message(first) else { throw TestFailure("no batch") }
      for heirloom in taken.map(KeeperBench.heirloom) {
        bench.adopt(heirloom)
        mine.insert(heirloom.port)
      }
      first.taken()
      let gone = KeeperBench.heirloom(try #require(taken.first))
      close(gone.descriptor)
      try waitUntil("the keeper has closed its copy") {
        try #require(clients.first { $0.port == gone.port }).hasEnded
      }
      // Of the second batch it has some, and doesn't come to say so; the third one it never sees.
      guard case .batch(let half, _) = try bench.message(first) else { throw TestFailure("no batch") }
      for heirloom in half.map(KeeperBench.heirloom).prefix(100) {
        bench.adopt(heirloom)
        mine.insert(heirloom.port)
      }
      for socket in half.dropFirst(100) { close(socket.descriptor) }

      let rest = try bench.takeAll(KeeperBench.incarnation + 2)
      #expect(mine.count == Int(RIG_COURIER_BATCH_ENTRIES) + 100)
      #expect(rest.count == clients.count - mine.count)
      #expect(mine.isDisjoint(with: rest.map(\.port)))
      for client in clients { #expect(client.hasEnded == (client.port == gone.port)) }
    }
  }

  @Test func `16.1 entries that the heir drops end with the keeper's copy`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try (0..<2).map { _ in try bench.connect("k") }
      try bench.killWorker()
      let heir = bench.heir()
      heir.ask()
      guard case .batch(let sockets, _) = try bench.message(heir) else { throw TestFailure("no batch") }
      for heirloom in sockets.map(KeeperBench.heirloom) {
        if heirloom.port == clients[0].port {
          bench.adopt(heirloom)
        } else {
          rig_store_release(bench.state(try #require(heirloom.entry)), 0)
          close(heirloom.descriptor)
        }
      }
      #expect(!clients[1].hasEnded)
      heir.taken()
      try waitUntil("the dropped one ends") { clients[1].hasEnded }
      #expect(try bench.message(heir) == .done)
      #expect(try bench.message(heir) == .gone)
      #expect(!clients[0].hasEnded)
    }
  }

  @Test
  func
    `16.1 an heir that may have fewer descriptors is told which entries it lost, and the next one gets them all`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try (0..<40).map { _ in try bench.connect("k") }
      try bench.killWorker()
      let counts = try bench.poorHeir(spare: 15)
      #expect(counts.received > 0 && counts.lost > 0)
      #expect(counts.received + counts.lost == clients.count)
      #expect(try bench.takeAll(KeeperBench.incarnation + 2).count == clients.count)
      for client in clients { #expect(!client.hasEnded) }
    }
  }

  @Test func `16.1 without an heir everything ends when the keeper's time is over`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench(patienceMs: 300)
      let clients = try [bench.connect("k"), bench.connect("u")]
      try bench.killWorker()
      for client in clients { try waitUntil("it ends") { client.hasEnded } }
      #expect(bench.heir().receive() == .gone)
    }
  }

  @Test func `16.1 a keeper ends with the supervisor, and when no heir is to come`() async throws {
    try await onOwnThread {
      let orphaned = try KeeperBench()
      let client = try orphaned.connect("k")
      try orphaned.killWorker()
      #expect(!client.hasEnded)
      orphaned.killSupervisor()
      try waitUntil("it ends") { client.hasEnded && !KeeperBench.lives(orphaned.keeper) }

      let both = try KeeperBench()
      let other = try both.connect("k")
      // The worker dies with it.
      both.killSupervisor()
      try waitUntil("all end") { other.hasEnded && !KeeperBench.lives(both.keeper) }

      let disinherited = try KeeperBench()
      let third = try disinherited.connect("k")
      try disinherited.killWorker()
      shutdown(disinherited.heirEnd, CInt(SHUT_RDWR))
      try waitUntil("it ends") { third.hasEnded && !KeeperBench.lives(disinherited.keeper) }
    }
  }

  @Test func `16.1 a worker that ends in order leaves nobody`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let clients = try [bench.connect("k"), bench.connect("u")]
      try bench.endWorker()
      for client in clients { try waitUntil("it ends") { client.hasEnded } }
      try waitUntil("the keeper has ended") { !KeeperBench.lives(bench.keeper) }
      #expect(bench.heir().receive() == .gone)
    }
  }

  @Test func `16.1 a keeper of nothing ends at once`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let client = try bench.connect("t")
      try bench.killWorker()
      try waitUntil("it ends") { client.hasEnded && !KeeperBench.lives(bench.keeper) }
    }
  }

  @Test func `16.1 a keeper is small, is seen as what it is, and minds no signal for its worker`()
    async throws
  {
    try await onOwnThread {
      let bench = try KeeperBench()
      let client = try bench.connect("k")
      let path = "/proc/\(bench.keeper)"
      try waitUntil("it is seen as what it is") {
        KeeperBench.text("\(path)/cmdline")?.hasPrefix("rig-keeper: holder\0") == true
      }
      #expect(KeeperBench.text("\(path)/comm") == "rig-keeper\n")
      #expect(KeeperBench.text("\(path)/environ") == KeeperBench.text("/proc/\(bench.worker)/environ"))
      #expect(getpgid(bench.keeper) == bench.keeper)
      #expect(getpgid(bench.worker) != bench.keeper)
      for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE] { kill(bench.keeper, signal) }
      try waitUntil("it has given back what it doesn't need") { try pssKiB(bench.keeper) < 1024 }
      try bench.killWorker()
      #expect(try pssKiB(bench.keeper) < 1024)
      #expect(try bench.takeAll().map(\.port) == [client.port])
    }
  }

  @Test func `16.1 a keeper that dies alone is noticed, and its worker's sockets end with it`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let client = try bench.connect("k")
      let before = try bench.order("e")
      #expect(before == "n")
      kill(bench.keeper, SIGKILL)
      try waitUntil("the worker notices") { try bench.order("e") == "y" }
      #expect(!client.hasEnded)
      try bench.killWorker()
      try waitUntil("it ends") { client.hasEnded }
      #expect(bench.heir().receive() == .gone)
    }
  }

  @Test func `16.1 a worker that has closed its courier has no heir`() async throws {
    try await onOwnThread {
      let bench = try KeeperBench()
      let client = try bench.connect("k")
      // Its number goes to a socket.
      let next = try bench.connect("c")
      try bench.killWorker()
      for client in [client, next] { try waitUntil("it ends") { client.hasEnded } }
      try waitUntil("the keeper has ended") { !KeeperBench.lives(bench.keeper) }
    }
  }

  private func pssKiB(_ pid: pid_t) throws -> Int {
    let text = try #require(KeeperBench.text("/proc/\(pid)/smaps_rollup"))
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("Pss:") })
    return try #require(Int(line.split(separator: " ")[1]))
  }
}

extension KeeperBench.Client {
  /// Whether so many bytes are there.
  fileprivate func peek(_ count: Int) -> Bool {
    var bytes = [UInt8](repeating: 0, count: count)
    return recv(descriptor, &bytes, count, CInt(MSG_DONTWAIT) | CInt(MSG_PEEK)) == count
  }
}

@Suite struct CourierTests {
  @Test func `16.1 what isn't for this heir, or makes no sense, is closed and passed over`() throws {
    var pair: [CInt] = [-1, -1]
    try #require(rig_seqpacket_pair(&pair) == 0)
    defer { for descriptor in pair { close(descriptor) } }
    let courier = Courier(pair[0], incarnation: 2)
    #expect(courier.receive() == .nothing)

    func message(_ change: (inout rig_courier_message) -> Void) -> rig_courier_message {
      var message = rig_courier_message()
      message.version = UInt8(RIG_COURIER_VERSION)
      message.kind = UInt8(RIG_COURIER_DONE)
      message.incarnation = 2
      change(&message)
      return message
    }
    let wrong = [
      message { $0.version = 9 }, message { $0.incarnation = 1 }, message { $0.kind = 77 },
      // A batch that states more than it has.
      message {
        $0.kind = UInt8(RIG_COURIER_BATCH)
        $0.count = 251
      },
    ]
    for var message in wrong { rig_message_send(pair[1], &message, Int(RIG_COURIER_HEAD_BYTES)) }
    rig_message_send(pair[1], [1, 2, 3] as [UInt8], 3)
    #expect(courier.receive() == .nothing)
    var done = message { _ in }
    rig_message_send(pair[1], &done, Int(RIG_COURIER_HEAD_BYTES))
    #expect(courier.receive() == .done)
  }
}
