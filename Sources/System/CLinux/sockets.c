#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TCP_LEVEL = 6, DESCRIPTORS_PER_MESSAGE = 253, COUNT_ATTEMPTS = 100 };

static int tcp_counts(int fd, uint64_t *acknowledged, uint64_t *received) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  memset(&info, 0, sizeof info);
  if (getsockopt(fd, TCP_LEVEL, TCP_INFO, &info, &length) < 0) return -1;
  if (length < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received) {
    errno = ENOSYS;
    return -1;
  }
  *acknowledged = info.tcpi_bytes_acked;
  *received = info.tcpi_bytes_received;
  return 0;
}

// An acknowledgement between the two calls would falsify the sum, so both functions ask until the count is the same before and after.
// A socket on which that never happens isn't quiet enough to be counted: EAGAIN.

int rig_tcp_written(int fd, uint64_t *bytes) {
  uint64_t before, after, received;
  if (tcp_counts(fd, &before, &received) < 0) return -1;
  for (int i = 0; i < COUNT_ATTEMPTS; i++, before = after) {
    int queued = 0;
    if (ioctl(fd, SIOCOUTQ, &queued) < 0 || tcp_counts(fd, &after, &received) < 0) return -1;
    if (before != after) continue;
    *bytes = after + (uint64_t)queued;
    return 0;
  }
  errno = EAGAIN;
  return -1;
}

int rig_tcp_read(int fd, uint64_t *bytes) {
  uint64_t before, after, acknowledged;
  if (tcp_counts(fd, &acknowledged, &before) < 0) return -1;
  for (int i = 0; i < COUNT_ATTEMPTS; i++, before = after) {
    int queued = 0;
    if (ioctl(fd, SIOCINQ, &queued) < 0 || tcp_counts(fd, &acknowledged, &after) < 0) return -1;
    if (before != after) continue;
    *bytes = after - (uint64_t)queued;
    return 0;
  }
  errno = EAGAIN;
  return -1;
}

int rig_socket_cookie(int fd, uint64_t *cookie) {
  socklen_t length = sizeof *cookie;
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &length);
}

int rig_seqpacket_pair(int pair[2]) { return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair); }

ssize_t rig_message_send(int fd, const void *message, size_t bytes) {
  ssize_t sent;
  do {
    sent = send(fd, message, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t rig_message_send_with(int fd, const void *message, size_t bytes, const int *descriptors, int count) {
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * sizeof(int))];
    struct cmsghdr aligned;
  } control;
  if (count == 0) return rig_message_send(fd, message, bytes);
  if (count < 0 || count > DESCRIPTORS_PER_MESSAGE) {
    errno = EINVAL;
    return -1;
  }
  memset(&control, 0, sizeof control);
  struct iovec vector = {(void *)message, bytes};
  struct msghdr header = {0};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
  control.aligned.cmsg_level = SOL_SOCKET;
  control.aligned.cmsg_type = SCM_RIGHTS;
  control.aligned.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
  memcpy(CMSG_DATA(&control.aligned), descriptors, (size_t)count * sizeof(int));
  ssize_t sent;
  do {
    sent = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t rig_message_receive(int fd, void *message, size_t bytes, int *descriptors, int *count) {
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * sizeof(int))];
    struct cmsghdr aligned;
  } control;
  struct iovec vector = {message, bytes};
  struct msghdr header = {0};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof control.bytes;
  int room = *count, got = 0, lost = 0;
  *count = 0;
  ssize_t received;
  do {
    received = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -1;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part != 0; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t here = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < here; i++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(part) + i * sizeof(int), sizeof descriptor);
      if (got < room) {
        descriptors[got++] = descriptor;
      } else {
        close(descriptor);
        lost = 1;
      }
    }
  }
  if (lost || (header.msg_flags & MSG_TRUNC) != 0) {
    for (int i = 0; i < got; i++) close(descriptors[i]);
    errno = EMSGSIZE;
    return -1;
  }
  *count = got;
  return received;
}

void rig_message_wait(int fd) {
  struct pollfd entry = {fd, POLLIN, 0};
  while (poll(&entry, 1, -1) < 0 && errno == EINTR) {
  }
}

int rig_is_hung_up(int fd) {
  struct pollfd entry = {fd, 0, 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}
