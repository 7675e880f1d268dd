// sockets.h: what the kernel knows of a TCP socket, which is the other half of a connection's ledger entry: how many bytes were
// written to it and read from it, whoever did that.

#ifndef RIG_CLINUX_SOCKETS_H
#define RIG_CLINUX_SOCKETS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Bytes that were written to an accepted TCP socket, acknowledged or not. 0, or -1 with errno (EAGAIN: too busy to be counted).
int rig_tcp_written(int fd, uint64_t *bytes);

/// Bytes that were read from a TCP socket; a FIN of the peer counts one from its arrival on. 0, or -1 with errno.
int rig_tcp_read(int fd, uint64_t *bytes);

/// The number that no other socket has, nor will have while the system runs. 0, or -1 with errno.
int rig_socket_cookie(int fd, uint64_t *cookie);

/// A connected pair of sockets for messages, close-on-exec. 0, or -1 with errno.
int rig_seqpacket_pair(int pair[2]);

/// Sends a message without waiting. Returns its length, or -1 with errno.
ssize_t rig_message_send(int fd, const void *message, size_t bytes);

/// The same with up to 253 descriptors, which stay the sender's own.
ssize_t rig_message_send_with(int fd, const void *message, size_t bytes, const int *descriptors, int count);

/// Takes a message without waiting, and up to `*count` descriptors that come with it, close-on-exec; `*count` is then how many. They are
/// the first of those that were sent if this process may not have more. Returns the message's length (0: the other side has gone), or -1
/// with errno; EMSGSIZE if there was more than room for, of which nothing is left.
ssize_t rig_message_receive(int fd, void *message, size_t bytes, int *descriptors, int *count);

/// Sleeps until there is something to receive, or the other side has gone.
void rig_message_wait(int fd);

/// Whether the other side of a pair has gone, or has been shut down.
int rig_is_hung_up(int fd);

#endif
