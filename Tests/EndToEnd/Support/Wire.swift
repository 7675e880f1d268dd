// A TCP connection to the gateway over plain POSIX calls: every read and write has a deadline, and nothing is done that
// the test didn't ask for. Descriptors are close-on-exec, so that no child of the test holds a connection open.

import CLinux
import Glibc
import TestSupport

/// A client's socket with what has been received but not used.
class Wire {
  let descriptor: CInt
  /// The client's own port, by which the gateway's side of the connection can be found.
  let localPort: Int
  var received = ByteQueue()
  private var hasInputEnded = false
  /// The peer has ended its side.
  var isAtEnd: Bool { hasInputEnded }
  /// The peer has reset the connection.
  private(set) var isReset = false
  /// What is spoken over the socket; nil: nothing but bytes.
  let tls: TLSEnd?

  private static let readSize = 65_536
  /// SO_ATTACH_FILTER, which Glibc's module leaves out.
  private static let attachFilter: CInt = 26

  /// Connects to `port` of this machine. `receiveBuffer`: bytes that the kernel may hold for a reader that doesn't read.
  ///
  /// - Parameter host: an IPv4 address of this machine.
  /// - Parameter tls: shakes hands by this and speaks TLS from then on.
  init(
    port: Int, host: String = "127.0.0.1", receiveBuffer: Int? = nil, blockingConnect: Bool = true,
    tls: TLSEnd? = nil
  ) throws {
    self.tls = tls
    let fd = rig_stream_socket(AF_INET)
    guard fd >= 0 else { throw TestFailure("socket: \(String(cString: strerror(errno)))") }
    descriptor = fd
    if var size = receiveBuffer.map(CInt.init(clamping:)) {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<CInt>.size))
    }
    var one: CInt = 1
    setsockopt(fd, CInt(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<CInt>.size))
    var address = localAddress(port: UInt16(clamping: port))
    inet_pton(AF_INET, host, &address.sin_addr)
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(fd, $0, size) }
    }
    var own = sockaddr_in()
    var ownSize = size
    _ = withUnsafeMutablePointer(to: &own) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &ownSize) }
    }
    localPort = Int(UInt16(bigEndian: own.sin_port))
    guard result != 0 else {
      try shakeHands()
      return
    }
    guard errno == EINPROGRESS else {
      throw TestFailure("connect to \(port): \(String(cString: strerror(errno)))")
    }
    if blockingConnect { try waitUntilConnected(port) }
    try shakeHands()
  }

  /// The other end of somebody's connection, which is this one's from here on. TLS is shaken hands for by `shakeHands`.
  init(accepted descriptor: CInt, tls: TLSEnd? = nil) {
    self.tls = tls
    self.descriptor = descriptor
    localPort = 0
  }

  /// Over TLS: both sides know who speaks; else nothing.
  final func shakeHands() throws {
    guard let tls else { return }
    let deadline = Deadline()
    while try !tls.handshake() {
      try sendRaw(tls.take(), deadline)
      guard try receiveRaw(deadline, { tls.give($0) }) else {
        throw TestFailure(hasInputEnded ? "closed in the TLS handshake" : "no answer in the TLS handshake")
      }
    }
    try sendRaw(tls.take(), deadline)
  }

  deinit {
    close(descriptor)
  }

  private func waitUntilConnected(_ port: Int) throws {
    guard waitFor(POLLOUT, Deadline()) else { throw TestFailure("connect to \(port): no answer") }
    var failure: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size)
    guard failure == 0 else { throw TestFailure("connect to \(port): \(String(cString: strerror(failure)))") }
  }

  /// True when one of `events` (or an error) is there before the deadline.
  private func waitFor(_ events: CInt, _ deadline: Deadline) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    while true {
      let result = poll(&entry, 1, deadline.remainingMilliseconds)
      if result > 0 { return true }
      if result == 0, deadline.hasPassed { return false }
    }
  }

  /// Sends everything, or as much as the peer takes before the deadline. Returns the number of bytes sent.
  @discardableResult
  func send(_ bytes: [UInt8], _ deadline: Deadline = Deadline()) throws -> Int {
    guard let tls else { return try sendRaw(bytes, deadline) }
    try tls.write(bytes)
    let records = tls.take()
    return try sendRaw(records, deadline) == records.count ? bytes.count : 0
  }

  @discardableResult
  private func sendRaw(_ bytes: [UInt8], _ deadline: Deadline) throws -> Int {
    var sent = 0
    while sent < bytes.count {
      let result = bytes.withUnsafeBytes { all in
        Glibc.send(
          descriptor, all.baseAddress.map { $0 + sent }, all.count - sent, CInt(MSG_NOSIGNAL))
      }
      if result > 0 {
        sent += result
      } else if errno == EAGAIN {
        guard waitFor(POLLOUT, deadline) else { return sent }
      } else if errno == EPIPE || errno == ECONNRESET {
        return sent
      } else if errno != EINTR {
        throw TestFailure("send: \(String(cString: strerror(errno)))")
      }
    }
    return sent
  }

  func send(_ text: String) throws {
    try send(Array(text.utf8))
  }

  /// Receives what is there, waiting for something until the deadline. False: nothing came.
  @discardableResult
  func receive(_ deadline: Deadline) throws -> Bool { try receive(deadline, into: &received) }

  /// Receives to the end of `queue` what is there, as `receive(_:)`.
  final func receive(_ deadline: Deadline, into queue: inout ByteQueue) throws -> Bool {
    guard let tls else { return try receiveRaw(deadline) { queue.append($0) } }
    while !tls.read(into: &queue) {
      // What was read before may have brought records as well.
      try sendRaw(tls.take(), deadline)
      guard try receiveRaw(deadline, { tls.give($0) }) else { return false }
    }
    return true
  }

  private func receiveRaw(_ deadline: Deadline, _ body: (UnsafeRawBufferPointer) -> Void) throws -> Bool {
    guard !hasInputEnded else { return false }
    while true {
      let count = withUnsafeTemporaryAllocation(byteCount: Self.readSize, alignment: 8) { space -> Int in
        let count = recv(descriptor, space.baseAddress, space.count, 0)
        if count > 0 { body(UnsafeRawBufferPointer(rebasing: space[..<count])) }
        return count
      }
      if count > 0 { return true }
      if count == 0 || errno == ECONNRESET {
        isReset = count != 0
        hasInputEnded = true
        return false
      }
      guard errno == EAGAIN || errno == EINTR else {
        throw TestFailure("recv: \(String(cString: strerror(errno)))")
      }
      guard !deadline.hasPassed, waitFor(POLLIN, deadline) else { return false }
    }
  }

  /// Receives until `complete` gives a value.
  func receive<Value>(
    _ what: String, _ deadline: Deadline = Deadline(), _ complete: (inout ByteQueue) throws -> Value?
  ) throws -> Value {
    while true {
      if let value = try complete(&received) { return value }
      guard try receive(deadline) else {
        let state = isReset ? "connection reset" : isAtEnd ? "connection closed" : "nothing came"
        throw TestFailure("\(state) while waiting for \(what); so far: \(received.text.prefix(300))")
      }
    }
  }

  /// Receives until the peer closes. Throws if it doesn't in time.
  func receiveToEnd(_ deadline: Deadline = Deadline()) throws -> ByteQueue {
    while try receive(deadline) {}
    guard isAtEnd else { throw TestFailure("the peer did not close; so far: \(received.text.prefix(300))") }
    return received
  }

  /// Breaks the connection off: the peer's next look at it is an error. Nothing may be done with it afterwards.
  func reset() {
    var immediately = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &immediately, socklen_t(MemoryLayout<linger>.size))
    hasInputEnded = true
  }

  /// From here on the client's machine seems to be gone: its kernel drops what comes, and acknowledges nothing.
  func vanish() throws {
    // struct sock_fprog of one struct sock_filter: BPF_RET | BPF_K, 0 (linux/filter.h).
    var dropAll: UInt64 = 6
    let result = withUnsafeMutablePointer(to: &dropAll) { code in
      var program = (count: UInt16(1), code: code)
      return setsockopt(
        descriptor, SOL_SOCKET, Self.attachFilter, &program, socklen_t(MemoryLayout.size(ofValue: program)))
    }
    guard result == 0 else { throw TestFailure("SO_ATTACH_FILTER: \(String(cString: strerror(errno)))") }
  }

  /// Over TLS: says that no more will be sent.
  func sayGoodbye() throws {
    guard let tls else { return }
    tls.end()
    try sendRaw(tls.take(), Deadline())
  }

  /// Ends this side; the other may still send.
  func endSending() {
    shutdown(descriptor, CInt(SHUT_WR))
  }
}
