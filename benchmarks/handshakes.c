// Full TLS 1.3 handshakes, one after the other on each of some threads, against 127.0.0.1, and what they cost the server.
//
//   handshakes PORT SECONDS THREADS SERVER_PID...
//
// Prints {"handshakes": N, "cpu_seconds": S, "per_cpu_s": R}. The CPU time is that of the server's processes, from /proc; each
// connection ends with closing alerts both ways and the server's end of the stream, so that its whole cost is in it.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static SSL_CTX *context;
static int port;
static double until;
static atomic_long done, failed;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_seconds(const char *pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%s/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t count = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[count] = 0;
  char *rest = strrchr(text, ')');
  unsigned long user = 0, system = 0;
  if (rest) sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static int handshake(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, isDone = 0;
  struct timeval patience = {.tv_sec = 5};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    isDone = SSL_connect(ssl) == 1 && !SSL_session_reused(ssl);
    SSL_shutdown(ssl);
    char rest[4096];
    while (recv(fd, rest, sizeof rest, 0) > 0) {}
    SSL_free(ssl);
  }
  close(fd);
  return isDone;
}

static void *run(void *unused) {
  (void)unused;
  while (now() < until) atomic_fetch_add(handshake() ? &done : &failed, 1);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  signal(SIGPIPE, SIG_IGN);
  port = atoi(argv[1]);
  int threads = atoi(argv[3]);
  context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  for (int i = 0; i < 20; i++) handshake();
  double before = 0, after = 0;
  for (int i = 4; i < argc; i++) before += cpu_seconds(argv[i]);
  until = now() + atof(argv[2]);
  pthread_t thread[64];
  if (threads > 64) threads = 64;
  for (int i = 0; i < threads; i++) pthread_create(&thread[i], NULL, run, NULL);
  for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  for (int i = 4; i < argc; i++) after += cpu_seconds(argv[i]);
  if (failed > done / 100) {
    fprintf(stderr, "handshakes: %ld of %ld failed\n", (long)failed, (long)(failed + done));
    return 1;
  }
  double cpu = after - before;
  printf("{\"handshakes\": %ld, \"cpu_seconds\": %.2f, \"per_cpu_s\": %.0f}\n", (long)done, cpu, cpu > 0 ? done / cpu : 0);
  return 0;
}
