// outlive.c: kill -9 of connection workers under load, or swaps of them (SIGUSR1), and every byte that the clients get. One epoll thread
// reads for all clients; a thread publishes by HTTP, one to Kafka, one kills or swaps.
//
//   outlive --inbound PORT --management PORT --gateway PID [--broker HOST:PORT] [--sse N] [--ws N] [--rate EVENTS/S] [--fan CLIENTS]
//           [--kills N | --swaps N] [--gap MS] [--none SECONDS] [--seed N] [--size BYTES] [--slow MS]
//
// Clients are divided into rows of --fan clients each; an event is of one row. Every other WebSocket has cursors. Half of the events
// come by HTTP, half by Kafka (all by HTTP without --broker). A kill follows the one before after 1 to 2 × --gap ms at random, of a
// random connection worker, whether the last one's heir is ready or not. --swaps: all of them are swapped, so many times; each time is
// over when those that were there have gone, and the next one follows 1 to 2 × --gap later. --none: nobody is killed for so many seconds. --size: bytes of
// data of an event, at least. --slow: every tenth client has the smallest buffer and sleeps for so long between two looks at it.
//
// Checked: HTTP chunks, blocks of the event stream, WebSocket frames, to the octet; the JSON of an event is the same at every client;
// numbers of each row and origin rise by one; cursors rise. One line of JSON:
//
//   closed       connections that ended             malformed    clients that were sent what no gateway may send
//   missing, doubled, disordered                    deliveries   events that arrived, of `expected`
//   delay_ms     from an event's 202, or its record's timestamp, to its arrival: median, p99, largest
//   cpu_s        of the gateway's processes that lived at the beginning and the end (for --none)
//   swap_*       the same delays of events that were accepted or arrived during a swap; quiet_*: of the others
//   *_swap_s     from the signal until those that were swapped had gone: median, largest
//   grown_*      from the second swap to the last: descriptors of the supervisor, its shared memory segments, processes, MB of PSS of all
//
// Exit status 1 if any of the first five isn't 0, or a swap took more than a minute.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENTS = 1 << 20, MAX_RINGS = 12, BUFFER = 1 << 18, MAX_DELAYS = 1 << 16, HTTP = 0, KAFKA = 1, ORIGINS = 2 };
enum { MAX_JSON = 1 << 15, SETTLE_S = 60, SWAP_S = 60, MAX_SWAPS = 1000, OPENING = 100, DELAY_UNIT_US = 100 };

static int inbound, management, sse = 100, ws = 100, rate = 200, fan = 200, kills = 50, swaps, gap_ms = 500, none_s = -1, data_size = 100, slow_ms, rows;
static pid_t gateway;
static const char *broker;
static unsigned seed = 16;

/// By number of the event in the whole run: when it was accepted (0: no answer yet), and what its JSON is.
static _Atomic uint64_t accepted_ns[MAX_EVENTS];
static uint64_t json_hash[MAX_EVENTS];
static _Atomic unsigned published;
/// By row and origin: how many.
static _Atomic unsigned *row_count[ORIGINS];
static _Atomic int is_over, killed, refused, is_swapping;
/// End of the last swap.
static _Atomic uint64_t swapped_ns;

static unsigned long closed, malformed, doubled, disordered, deliveries;
/// Of events: those around which nothing was done, and those of a swap.
struct delays {
  unsigned by_unit[MAX_DELAYS];
  uint64_t largest_ns;
};
static struct delays quiet_delays, swap_delays;
static char first_fault[512];

struct client {
  int fd, row, is_ws, has_cursors, is_open, is_greeted, is_gone, is_slow;
  /// It sleeps until then; 0: it is awake.
  uint64_t wake_ns;
  unsigned next[ORIGINS];
  uint64_t cursor[MAX_RINGS];
  char *rest;
  int rest_length;
};
static struct client *clients;
static int count, greeted;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static void die(const char *text, ...) {
  va_list arguments;
  va_start(arguments, text);
  vfprintf(stderr, text, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(2);
}

/// `buffer`: bytes that the kernel may hold for a reader that doesn't read; 0: as it likes.
static int connect_to(int port, int buffer) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0) die("socket: %s", strerror(errno));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  for (int attempt = 0; connect(fd, (struct sockaddr *)&to, sizeof to) < 0; attempt++) {
    if (attempt == 50) die("connect to %d: %s", port, strerror(errno));
    usleep(20000);
  }
  return fd;
}

// MARK: What the clients get

static void gone(struct client *c, unsigned long *counter, const char *why, const char *bytes, int length) {
  if (c->is_gone) return;
  c->is_gone = 1;
  (*counter)++;
  close(c->fd);
  if (!*first_fault) {
    int n = snprintf(first_fault, sizeof first_fault, "client %d (%s): %s: ", (int)(c - clients), c->is_ws ? "ws" : "sse", why);
    for (int i = 0; i < length && i < 200 && n < (int)sizeof first_fault - 1; i++) {
      first_fault[n++] = isprint((unsigned char)bytes[i]) && bytes[i] != '"' && bytes[i] != '\\' ? bytes[i] : '.';
    }
  }
}

/// 0: the cursor has gone back, or stayed although an event came.
static int advance(struct client *c, const char *text, int length, int is_event) {
  uint64_t next[MAX_RINGS] = {0};
  int ring = 0, rises = 0;
  for (int i = 0; i < length; i++) {
    char d = text[i];
    if (d == '-') {
      if (++ring == MAX_RINGS) return 0;
    } else if (isdigit((unsigned char)d)) {
      next[ring] = next[ring] * 36 + (uint64_t)(d - '0');
    } else if (d >= 'a' && d <= 'z') {
      next[ring] = next[ring] * 36 + (uint64_t)(d - 'a' + 10);
    } else {
      return 0;
    }
  }
  for (ring = 0; ring < MAX_RINGS; ring++) {
    if (next[ring] < c->cursor[ring] || (ring == 0 && c->cursor[0] && next[0] != c->cursor[0])) return 0;
    rises |= next[ring] > c->cursor[ring];
  }
  memcpy(c->cursor, next, sizeof next);
  return rises || !is_event;
}

/// The text of member `name`, as in `"name":"text"`.
static const char *member(const char *json, int length, const char *name, int *size) {
  char key[32];
  int n = snprintf(key, sizeof key, "\"%s\":\"", name);
  const char *at = memmem(json, (size_t)length, key, (size_t)n);
  if (!at) return NULL;
  const char *end = memchr(at + n, '"', (size_t)(json + length - at - n));
  *size = end ? (int)(end - at - n) : 0;
  return end ? at + n : NULL;
}

static void note_delay(unsigned number) {
  uint64_t at = atomic_load(&accepted_ns[number]), now = now_ns(), delay = at && now > at ? now - at : 0;
  uint64_t unit = delay / 1000 / DELAY_UNIT_US;
  struct delays *delays = atomic_load(&is_swapping) || at < atomic_load(&swapped_ns) ? &swap_delays : &quiet_delays;
  delays->by_unit[unit < MAX_DELAYS ? unit : MAX_DELAYS - 1]++;
  if (delay > delays->largest_ns) delays->largest_ns = delay;
}

/// 0: not what the gateway was given. The ids of our events: ORIGIN.ROW.NUMBER.NUMBER IN THE RUN
static int note_json(struct client *c, const char *json, int length) {
  int size, cursor_size = 0;
  if (length < 2 || json[0] != '{' || json[length - 1] != '}') return 0;
  const char *type = member(json, length, "type", &size);
  if (!type) return 0;
  int is_own = size > 4 && !memcmp(type, "rig.", 4);
  const char *cursor = member(json, length, "rigcursor", &cursor_size);
  if (cursor && !advance(c, cursor, cursor_size, !is_own)) return 0;
  if (is_own) {
    if (size == 20 && !memcmp(type, "rig.subscriptions_set", 20)) return 0;
    if (size == 21 && !memcmp(type, "rig.subscriptions_set", 21) && !c->is_greeted) c->is_greeted = 1, greeted++;
    return size != 15 || memcmp(type, "rig.events_lost", 15);
  }
  if (c->has_cursors && !cursor) return 0;
  const char *id = member(json, length, "id", &size);
  unsigned origin, row, number, overall;
  if (!id || sscanf(id, "%u.%u.%u.%u\"", &origin, &row, &number, &overall) != 4) return 0;
  if (origin >= ORIGINS || (int)row != c->row || overall >= MAX_EVENTS) return 0;
  uint64_t hash = 14695981039346656037u;
  const char *cut = cursor ? cursor - strlen(",\"rigcursor\":\"") : json + length - 1;
  for (const char *at = json; at < cut; at++) hash = (hash ^ (uint8_t)*at) * 1099511628211u;
  if (json_hash[overall] == 0) json_hash[overall] = hash;
  if (json_hash[overall] != hash) return 0;
  deliveries++;
  note_delay(overall);
  if (number == c->next[origin]) {
    c->next[origin]++;
  } else if (number < c->next[origin]) {
    doubled++;
  } else {
    // What is skipped and comes no more is found to be missing at the end.
    disordered++;
  }
  return 1;
}

/// One block of an event stream without the empty line behind it. 0: malformed.
static int note_block(struct client *c, const char *block, int length) {
  const char *end = block + length, *data = NULL, *id = NULL;
  int data_size = 0, id_size = 0, has_name = 0, is_own = 0, says = 0;
  for (const char *line = block; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    if (!stop) stop = end;
    int size = (int)(stop - line);
    if (size > 4 && !memcmp(line, "id: ", 4)) {
      id = line + 4, id_size = size - 4;
    } else if (size > 7 && !memcmp(line, "event: ", 7)) {
      has_name = 1, is_own = size > 11 && !memcmp(line + 7, "rig.", 4);
    } else if (size > 6 && !memcmp(line, "data: ", 6) && !data) {
      data = line + 6, data_size = size - 6;
    } else if ((size > 7 && !memcmp(line, "retry: ", 7)) || (size == 10 && !memcmp(line, ":heartbeat", 10))) {
      says = 1;
    } else {
      return 0;
    }
    line = stop + 1;
  }
  if (id && !advance(c, id, id_size, has_name && !is_own)) return 0;
  return data ? has_name && note_json(c, data, data_size) : says;
}

/// Takes what is whole. Bytes taken, -1: malformed.
static int read_chunks(struct client *c, char *bytes, int length) {
  int at = 0;
  while (at < length) {
    char *line = memchr(bytes + at, '\n', (size_t)(length - at));
    if (!line) return length - at > 10 ? -1 : at;
    char *stop;
    if (!isxdigit((unsigned char)bytes[at])) return -1;
    long size = strtol(bytes + at, &stop, 16);
    if (stop + 1 != line || *stop != '\r' || size <= 0 || size > BUFFER / 2) return -1;
    char *data = line + 1;
    if (data + size + 2 > bytes + length) return at;
    if (data[size] != '\r' || data[size + 1] != '\n') return -1;
    for (char *block = data; block < data + size;) {
      char *end = memmem(block, (size_t)(data + size - block), "\n\n", 2);
      if (!end || !note_block(c, block, (int)(end - block))) return -1;
      block = end + 2;
    }
    at = (int)(data + size + 2 - bytes);
  }
  return at;
}

static int read_frames(struct client *c, unsigned char *bytes, int length) {
  int at = 0;
  while (length - at >= 2) {
    unsigned char *frame = bytes + at;
    int head = 2;
    uint64_t size = frame[1];
    if (size & 0x80) return -1;
    if (size >= 126) {
      int more = size == 126 ? 2 : 8;
      if (length - at < 2 + more) return at;
      size = 0;
      for (int i = 0; i < more; i++) size = size << 8 | frame[2 + i];
      head += more;
    }
    if (size > BUFFER / 2) return -1;
    if ((uint64_t)(length - at) < (uint64_t)head + size) return at;
    if (frame[0] == 0x81) {
      if (!note_json(c, (char *)frame + head, (int)size)) return -1;
    } else if (frame[0] == 0x89 && size < 126) {
      unsigned char pong[6 + 126] = {0x8A, (unsigned char)(0x80 | size)};
      memcpy(pong + 6, frame + head, size);
      send(c->fd, pong, 6 + size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (frame[0] == 0x88) {
      gone(c, &closed, "close frame", (char *)frame + head, (int)size);
      return length;
    } else {
      return -1;
    }
    at += head + (int)size;
  }
  return at;
}

static int understand(struct client *c, char *bytes, int length) {
  int at = 0;
  if (!c->is_open) {
    char *end = memmem(bytes, (size_t)length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(bytes, c->is_ws ? "HTTP/1.1 101" : "HTTP/1.1 200", 12)) return -1;
    c->is_open = 1;
    at = (int)(end + 4 - bytes);
  }
  int taken = c->is_ws ? read_frames(c, (unsigned char *)bytes + at, length - at) : read_chunks(c, bytes + at, length - at);
  return taken < 0 ? -1 : at + taken;
}

static void receive(struct client *c) {
  static char buffer[2 * BUFFER];
  memcpy(buffer, c->rest, (size_t)c->rest_length);
  ssize_t n = recv(c->fd, buffer + c->rest_length, BUFFER, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return gone(c, &closed, n == 0 ? "closed" : strerror(errno), buffer, c->rest_length);
  int length = c->rest_length + (int)n, taken = understand(c, buffer, length);
  if (c->is_gone) return;
  if (taken < 0) return gone(c, &malformed, "malformed", buffer, length);
  int rest = length - taken;
  if (rest > BUFFER) return gone(c, &malformed, "no end of a piece", buffer, length);
  if (rest == 0) {
    free(c->rest);
    c->rest = NULL;
  } else {
    c->rest = realloc(c->rest, (size_t)rest);
    if (!c->rest) die("no memory");
    memcpy(c->rest, buffer + taken, (size_t)rest);
  }
  c->rest_length = rest;
}

static void watch(int epoll, int index, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.u32 = (uint32_t)index};
  epoll_ctl(epoll, operation, clients[index].fd, &event);
}

static void wake_sleepers(int epoll) {
  uint64_t now = now_ns();
  for (int i = 0; slow_ms && i < count; i += 10) {
    if (clients[i].is_gone || !clients[i].wake_ns || clients[i].wake_ns > now) continue;
    clients[i].wake_ns = 0;
    watch(epoll, i, EPOLL_CTL_MOD, EPOLLIN);
  }
}

static int poll_clients(int epoll, int ms) {
  struct epoll_event events[512];
  wake_sleepers(epoll);
  int n = epoll_wait(epoll, events, 512, ms);
  for (int i = 0; i < n; i++) {
    struct client *c = &clients[events[i].data.u32];
    if (!c->is_gone) receive(c);
    if (!c->is_slow || c->is_gone || !c->is_greeted || atomic_load(&is_over)) continue;
    c->wake_ns = now_ns() + (uint64_t)slow_ms * 1000000u;
    watch(epoll, (int)events[i].data.u32, EPOLL_CTL_MOD, 0);
  }
  return n;
}

static void open_clients(int epoll) {
  for (int i = 0; i < count; i++) {
    struct client *c = &clients[i];
    c->is_ws = i >= sse;
    c->has_cursors = c->is_ws && i % 2;
    c->row = i % rows;
    c->is_slow = slow_ms && i % 10 == 0;
    c->fd = connect_to(inbound, c->is_slow ? 4096 : 0);
    char request[512];
    int length = snprintf(request, sizeof request,
        "GET /_rig/v1/connection/%s?subscriptions=%%5B%%7B%%22eventType%%22%%3A%%22r%d%%22%%7D%%5D%s HTTP/1.1\r\nhost: localhost\r\n%s\r\n",
        c->is_ws ? "ws" : "sse", c->row, c->has_cursors ? "&cursors=true" : "",
        c->is_ws ? "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                   "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                 : "");
    if (send(c->fd, request, (size_t)length, MSG_NOSIGNAL) != length) die("a request didn't go out");
    watch(epoll, i, EPOLL_CTL_ADD, EPOLLIN);
    while (i - greeted > OPENING) {
      if (poll_clients(epoll, 30000) == 0) die("clients aren't greeted: %d of %d; %s", greeted, i, first_fault);
      if (closed + malformed) die("%s", first_fault);
    }
  }
  while (greeted < count) {
    if (poll_clients(epoll, 30000) == 0 || closed + malformed) die("clients aren't greeted: %d; %s", greeted, first_fault);
  }
}

// MARK: What is published

/// Writes the next event of an origin. Its number in the run.
static unsigned next_event(int origin, unsigned step, char *json, size_t capacity) {
  unsigned row = step % (unsigned)rows, overall = atomic_fetch_add(&published, 1);
  if (overall >= MAX_EVENTS) die("more than %d events", MAX_EVENTS);
  unsigned number = atomic_load(&row_count[origin][row]);
  snprintf(json, capacity,
      "{\"specversion\":\"1.0\",\"type\":\"r%u\",\"source\":\"/outlive\",\"id\":\"%d.%u.%u.%u\",\"data\":\"%0*u\"}", row, origin, row, number,
      overall, data_size + (int)(overall % 100), overall);
  return overall;
}

static void accepted(int origin, unsigned step, unsigned overall) {
  atomic_store(&accepted_ns[overall], now_ns());
  atomic_fetch_add(&row_count[origin][step % (unsigned)rows], 1);
}

static void *publish_http(void *nothing) {
  (void)nothing;
  int fd = connect_to(management, 0);
  uint64_t interval = 1000000000u / (uint64_t)(broker ? (rate + 1) / 2 : rate), due = now_ns();
  for (unsigned step = 0; !atomic_load(&is_over); step++) {
    char json[MAX_JSON], request[MAX_JSON + 512], answer[2 * MAX_JSON];
    unsigned overall = next_event(HTTP, step, json, sizeof json);
    int length = snprintf(request, sizeof request,
        "POST /v3/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json\r\ncontent-length: %zu\r\n\r\n%s",
        strlen(json), json);
    if (send(fd, request, (size_t)length, MSG_NOSIGNAL) != length) die("the management port doesn't take events");
    ssize_t got = 0;
    for (char *end = NULL; !end;) {
      ssize_t n = recv(fd, answer + got, sizeof answer - 1 - (size_t)got, 0);
      if (n <= 0) die("the management port doesn't answer");
      got += n;
      answer[got] = 0;
      end = strstr(answer, "\r\n\r\n");
      if (!end) continue;
      char *field = strcasestr(answer, "content-length:");
      if (field && field < end && end + 4 + atoi(field + 15) > answer + got) end = NULL;
    }
    if (strncmp(answer, "HTTP/1.1 202", 12)) {
      atomic_fetch_add(&refused, 1);
      atomic_store(&accepted_ns[overall], UINT64_MAX);
    } else {
      accepted(HTTP, step, overall);
    }
    sleep_until(due += interval);
  }
  close(fd);
  return NULL;
}

static void *publish_kafka(void *nothing) {
  (void)nothing;
  char error[512];
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", broker, error, sizeof error);
  rd_kafka_conf_set(conf, "linger.ms", "0", error, sizeof error);
  rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
  if (!producer) die("kafka: %s", error);
  uint64_t interval = 1000000000u / (uint64_t)((rate + 1) / 2), due = now_ns();
  for (unsigned step = 0; !atomic_load(&is_over); step++) {
    char json[MAX_JSON];
    unsigned overall = next_event(KAFKA, step, json, sizeof json);
    int failure = rd_kafka_producev(producer, RD_KAFKA_V_TOPIC("rig"), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_VALUE(json, strlen(json)),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (failure) die("kafka: %s", rd_kafka_err2str(failure));
    accepted(KAFKA, step, overall);
    rd_kafka_poll(producer, 0);
    sleep_until(due += interval);
  }
  rd_kafka_flush(producer, 10000);
  rd_kafka_destroy(producer);
  return NULL;
}

// MARK: The gateway's processes

/// Calls `body` for each child of the gateway, with what /proc/PID/stat says behind its name.
static void for_each_child(void (*body)(pid_t, const char *name, const char *rest, void *), void *argument) {
  DIR *proc = opendir("/proc");
  for (struct dirent *entry; proc && (entry = readdir(proc));) {
    char path[300], text[1024], *end;
    pid_t pid = (pid_t)strtol(entry->d_name, &end, 10), parent;
    if (*end || pid <= 0) continue;
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    char *open = strchr(text, '('), *shut = strrchr(text, ')'), state;
    if (!open || !shut || sscanf(shut + 2, "%c %d", &state, &parent) != 2) continue;
    *shut = 0;
    if ((parent == gateway || pid == gateway) && state != 'Z') body(pid, open + 1, shut + 2, argument);
  }
  if (proc) closedir(proc);
}

struct victims {
  pid_t pids[64];
  int count;
};

/// Those in reserve are no workers yet.
static int is_spare(pid_t pid) {
  char path[64], text[64];
  snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = 0;
  return strstr(text, ": spare") != NULL;
}

static void add_victim(pid_t pid, const char *name, const char *rest, void *victims) {
  (void)rest;
  struct victims *v = victims;
  if (!strcmp(name, "rig-connections") && v->count < 64 && !is_spare(pid)) v->pids[v->count++] = pid;
}

static void add_cpu(pid_t pid, const char *name, const char *rest, void *ticks) {
  (void)pid, (void)name;
  unsigned long user = 0, system = 0;
  sscanf(rest, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  *(unsigned long *)ticks += user + system;
}

static double cpu_seconds(void) {
  unsigned long ticks = 0;
  for_each_child(add_cpu, &ticks);
  return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

struct footprint {
  int processes, descriptors, segments;
  double pss_mb;
};

static void add_descriptors(struct footprint *footprint) {
  char path[64], name[300], link[300];
  snprintf(path, sizeof path, "/proc/%d/fd", gateway);
  DIR *directory = opendir(path);
  for (struct dirent *entry; directory && (entry = readdir(directory));) {
    if (*entry->d_name == '.') continue;
    footprint->descriptors++;
    snprintf(name, sizeof name, "/proc/%d/fd/%s", gateway, entry->d_name);
    ssize_t n = readlink(name, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    footprint->segments += strstr(link, "memfd:") != NULL;
  }
  if (directory) closedir(directory);
}

static void add_memory(pid_t pid, struct footprint *footprint) {
  char path[64], line[256];
  unsigned long kb;
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "Pss: %lu", &kb) == 1) footprint->pss_mb += (double)kb / 1024;
  }
  if (file) fclose(file);
}

/// The gateway's, keepers included: they are its children's children.
static struct footprint look_at_gateway(void) {
  static pid_t pids[1 << 15], parents[1 << 15];
  struct footprint footprint = {0};
  int all = 0;
  DIR *proc = opendir("/proc");
  for (struct dirent *entry; proc && (entry = readdir(proc)) && all < 1 << 15;) {
    char path[300], text[1024], *end, state;
    pid_t pid = (pid_t)strtol(entry->d_name, &end, 10);
    if (*end || pid <= 0) continue;
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    char *shut = strrchr(text, ')');
    if (shut && sscanf(shut + 2, "%c %d", &state, &parents[all]) == 2 && state != 'Z') pids[all++] = pid;
  }
  if (proc) closedir(proc);
  for (int i = 0; i < all; i++) {
    pid_t grandparent = 0;
    for (int k = 0; k < all; k++) {
      if (pids[k] == parents[i]) grandparent = parents[k];
    }
    if (pids[i] != gateway && parents[i] != gateway && grandparent != gateway) continue;
    footprint.processes++;
    add_memory(pids[i], &footprint);
  }
  add_descriptors(&footprint);
  return footprint;
}

/// A while behind a swap: the next spare is there.
static struct footprint look_at_rest(void) {
  sleep_until(now_ns() + 3000000000u);
  return look_at_gateway();
}

static double swap_s[MAX_SWAPS];
static int swapped, is_swap_late;
static struct footprint first_footprint, last_footprint;

/// Whether all of them have ended, or are being waited for.
static int are_gone(const struct victims *workers) {
  struct victims now = {.count = 0};
  for_each_child(add_victim, &now);
  for (int i = 0; i < workers->count; i++) {
    for (int k = 0; k < now.count; k++) {
      if (workers->pids[i] == now.pids[k]) return 0;
    }
  }
  return 1;
}

static void *swap_workers(void *nothing) {
  (void)nothing;
  unsigned random = seed;
  while (swapped < swaps && !is_swap_late) {
    sleep_until(now_ns() + (uint64_t)(gap_ms * 1000 + rand_r(&random) % (gap_ms * 1000)) * 1000u);
    // The seats of a place aren't the same: two swaps lead back to the first.
    if (swapped == 2) first_footprint = look_at_rest();
    struct victims workers = {.count = 0};
    for_each_child(add_victim, &workers);
    uint64_t start = now_ns();
    atomic_store(&is_swapping, 1);
    kill(gateway, SIGUSR1);
    while (!are_gone(&workers) && !is_swap_late) {
      sleep_until(now_ns() + 10000000u);
      is_swap_late = now_ns() > start + SWAP_S * 1000000000ull;
    }
    uint64_t end = now_ns();
    atomic_store(&swapped_ns, end);
    atomic_store(&is_swapping, 0);
    swap_s[swapped++] = (double)(end - start) / 1e9;
  }
  last_footprint = look_at_rest();
  atomic_store(&is_over, 1);
  return NULL;
}

static void *kill_workers(void *nothing) {
  (void)nothing;
  unsigned random = seed;
  sleep_until(now_ns() + 1000000000u);
  if (none_s >= 0) {
    sleep_until(now_ns() + (uint64_t)none_s * 1000000000u);
  }
  while (none_s < 0 && atomic_load(&killed) < kills) {
    sleep_until(now_ns() + (uint64_t)(gap_ms * 1000 + rand_r(&random) % (gap_ms * 1000)) * 1000u);
    struct victims victims = {.count = 0};
    for_each_child(add_victim, &victims);
    if (victims.count == 0) continue;
    kill(victims.pids[rand_r(&random) % (unsigned)victims.count], SIGKILL);
    atomic_fetch_add(&killed, 1);
  }
  atomic_store(&is_over, 1);
  return NULL;
}

// MARK: The whole

static double delay_ms(const struct delays *delays, double share) {
  unsigned long all = 0, sum = 0;
  for (int i = 0; i < MAX_DELAYS; i++) all += delays->by_unit[i];
  for (int i = 0; i < MAX_DELAYS; i++) {
    sum += delays->by_unit[i];
    if ((double)sum >= share * (double)all && sum) return (double)(i + 1) * DELAY_UNIT_US / 1000;
  }
  return 0;
}

static void print_delays(const char *which, const struct delays *delays) {
  printf("\"%smedian_ms\": %.1f, \"%sp99_ms\": %.1f, \"%slargest_ms\": %.1f", which, delay_ms(delays, 0.5), which, delay_ms(delays, 0.99),
      which, (double)delays->largest_ns / 1e6);
}

static int compare_seconds(const void *a, const void *b) {
  double difference = *(const double *)a - *(const double *)b;
  return (difference > 0) - (difference < 0);
}

static void print_swaps(void) {
  qsort(swap_s, (size_t)swapped, sizeof *swap_s, compare_seconds);
  printf("\"swaps\": %d, \"median_swap_s\": %.2f, \"largest_swap_s\": %.2f, \"grown_descriptors\": %d, \"grown_segments\": %d, "
         "\"grown_processes\": %d, \"grown_mb\": %.1f, ",
      swapped, swapped ? swap_s[swapped / 2] : 0, swapped ? swap_s[swapped - 1] : 0,
      last_footprint.descriptors - first_footprint.descriptors, last_footprint.segments - first_footprint.segments,
      last_footprint.processes - first_footprint.processes, last_footprint.pss_mb - first_footprint.pss_mb);
  print_delays("swap_", &swap_delays);
  printf(", ");
}

static unsigned long count_missing(unsigned long *expected) {
  unsigned long missing = 0;
  *expected = 0;
  for (int i = 0; i < count; i++) {
    for (int origin = 0; origin < ORIGINS; origin++) {
      unsigned all = atomic_load(&row_count[origin][clients[i].row]);
      *expected += all;
      missing += all - (clients[i].next[origin] < all ? clients[i].next[origin] : all);
    }
  }
  return missing;
}

static int number_of(const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*end || value < 0 || value > 1 << 30) die("'%s' is no number", text);
  return (int)value;
}

int main(int argc, char **argv) {
  struct {
    const char *name;
    int *value;
  } options[] = {{"--inbound", &inbound}, {"--management", &management}, {"--sse", &sse}, {"--ws", &ws}, {"--rate", &rate},
      {"--fan", &fan}, {"--kills", &kills}, {"--swaps", &swaps}, {"--gap", &gap_ms}, {"--none", &none_s}, {"--gateway", &gateway}, {"--seed", (int *)&seed},
      {"--size", &data_size}, {"--slow", &slow_ms}};
  for (int i = 1; i + 1 < argc; i += 2) {
    int found = !strcmp(argv[i], "--broker");
    if (found) broker = argv[i + 1];
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
      if (!strcmp(argv[i], options[k].name)) *options[k].value = number_of(argv[i + 1]), found = 1;
    }
    if (!found) die("no such option: %s", argv[i]);
  }
  count = sse + ws;
  if (argc % 2 == 0 || !inbound || !management || !gateway || !count || !rate || !fan || !gap_ms || data_size > MAX_JSON - 512 || swaps > MAX_SWAPS) die("see the head of outlive.c for options");
  rows = (count + fan - 1) / fan;
  clients = calloc((size_t)count, sizeof *clients);
  for (int origin = 0; origin < ORIGINS; origin++) row_count[origin] = calloc((size_t)rows, sizeof **row_count);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  open_clients(epoll);
  fprintf(stderr, "%d clients are connected\n", count);
  double cpu = cpu_seconds();
  pthread_t threads[3];
  pthread_create(&threads[0], NULL, swaps ? swap_workers : kill_workers, NULL);
  pthread_create(&threads[1], NULL, publish_http, NULL);
  if (broker) pthread_create(&threads[2], NULL, publish_kafka, NULL);
  while (!atomic_load(&is_over)) poll_clients(epoll, 100);
  pthread_t *last = broker ? &threads[2] : &threads[1];
  for (pthread_t *thread = threads; thread <= last; thread++) {
    while (pthread_tryjoin_np(*thread, NULL) == EBUSY) poll_clients(epoll, 10);
  }
  unsigned long expected = 0, missing = 0;
  uint64_t deadline = now_ns() + SETTLE_S * 1000000000ull;
  while ((missing = count_missing(&expected)) > 0 && now_ns() < deadline) poll_clients(epoll, 100);
  // What comes twice comes soon.
  uint64_t end = now_ns() + 1000000000u;
  while (now_ns() < end) poll_clients(epoll, 50);
  cpu = cpu_seconds() - cpu;
  for (int i = 0; i < count; i++) {
    if (clients[i].rest_length && !clients[i].is_gone) gone(&clients[i], &malformed, "stands in a piece", clients[i].rest, clients[i].rest_length);
  }
  // A client that missed one event got all behind it too early: that is one fault, and it is missing.
  printf("{\"clients\": %d, \"kills\": %d, \"published\": %u, \"refused\": %d, \"expected\": %lu, \"deliveries\": %lu, \"closed\": %lu, "
         "\"malformed\": %lu, \"missing\": %lu, \"doubled\": %lu, \"disordered\": %lu, \"cpu_s\": %.2f, \"first_fault\": \"%s\", ",
      count, atomic_load(&killed), atomic_load(&published), atomic_load(&refused), expected, deliveries, closed, malformed, missing, doubled,
      disordered, cpu, first_fault);
  if (swaps) print_swaps();
  print_delays(swaps ? "quiet_" : "", &quiet_delays);
  printf("}\n");
  return closed + malformed + missing + doubled + disordered > 0 || is_swap_late;
}
