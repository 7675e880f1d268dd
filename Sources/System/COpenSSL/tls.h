// What of libssl is a macro, and so invisible to Swift.

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/tls1.h>
#include <openssl/x509v3.h>

// Version range, modes, options and session handling of a server's context. 1: done.
static inline int rig_ssl_ctx_prepare(SSL_CTX *ctx, const char *groups) {
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE
                               | SSL_OP_PRIORITIZE_CHACHA);
  // Buffers are given back while nothing is on its way; a write is never repeated, wherever its bytes are.
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Sessions are in the tickets and not in our memory.
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1
      && SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set1_groups_list(ctx, groups) == 1;
}

// The same of a client's: what TLS 1.2 may use is up to the system's policy, but nothing older is spoken. Sessions are given to the
// callback and not kept here. 1: done.
static inline int rig_ssl_ctx_prepare_client(SSL_CTX *ctx) {
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  // A policy may demand more.
  return SSL_CTX_get_min_proto_version(ctx) >= TLS1_2_VERSION || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1;
}

// Whom calls back about a connection, or about its peer's certificate, are for; NULL: nobody.
static inline int rig_ssl_set_owner(SSL *ssl, void *owner) { return SSL_set_app_data(ssl, owner); }
static inline void *rig_ssl_owner(const SSL *ssl) { return SSL_get_app_data(ssl); }
static inline void *rig_store_owner(const X509_STORE_CTX *store) {
  const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  return ssl == NULL ? NULL : SSL_get_app_data(ssl);
}

// The server name that is asked for by a client (RFC 6066 §3). 1: done.
static inline long rig_ssl_set_server_name(SSL *ssl, const char *name) { return SSL_set_tlsext_host_name(ssl, name); }

typedef int (*rig_servername_callback)(SSL *, int *, void *);

static inline void rig_ssl_ctx_set_servername(SSL_CTX *ctx, rig_servername_callback callback, void *argument) {
  SSL_CTX_set_tlsext_servername_callback(ctx, callback);
  SSL_CTX_set_tlsext_servername_arg(ctx, argument);
}

// The context takes the certificate over. 1: done.
static inline int rig_ssl_ctx_add_chain(SSL_CTX *ctx, X509 *certificate) {
  return SSL_CTX_add0_chain_cert(ctx, certificate) == 1;
}

// How many bytes the keys of tickets have.
static inline long rig_ssl_ctx_ticket_key_bytes(SSL_CTX *ctx) { return SSL_CTX_set_tlsext_ticket_keys(ctx, NULL, 0); }

static inline int rig_ssl_ctx_set_ticket_keys(SSL_CTX *ctx, const unsigned char *keys, long bytes) {
  return SSL_CTX_set_tlsext_ticket_keys(ctx, (void *)keys, bytes) == 1;
}

// The server name that the client asked for; NULL: none.
static inline const char *rig_ssl_server_name(const SSL *ssl) {
  return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
}

static inline void rig_bio_want_read(BIO *bio) { BIO_set_retry_read(bio); }
static inline void rig_bio_clear_retry(BIO *bio) { BIO_clear_retry_flags(bio); }

static inline int rig_general_names_count(const GENERAL_NAMES *names) { return sk_GENERAL_NAME_num(names); }

// The bytes of a DNS name in a certificate; NULL: the name is of another kind.
static inline const unsigned char *rig_general_names_dns(const GENERAL_NAMES *names, int index, int *bytes) {
  const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
  if (name->type != GEN_DNS) return NULL;
  *bytes = ASN1_STRING_length(name->d.dNSName);
  return ASN1_STRING_get0_data(name->d.dNSName);
}

static inline unsigned long rig_err_is_no_pem(unsigned long error) {
  return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

// For tests.
static inline long rig_ssl_ctx_limit_version(SSL_CTX *ctx, int minimum, int maximum) {
  return SSL_CTX_set_min_proto_version(ctx, minimum) == 1 && SSL_CTX_set_max_proto_version(ctx, maximum) == 1;
}
