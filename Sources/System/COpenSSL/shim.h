#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include "tls.h"

// Swift doesn't see macros that are made of other macros.
static const int rig_evp_pkey_public_key = EVP_PKEY_PUBLIC_KEY;

// Names of parameters are kept by reference: they have to be C's own strings, and not copies made by Swift for a call.
static inline const char *rig_param_rsa_n(void) { return OSSL_PKEY_PARAM_RSA_N; }
static inline const char *rig_param_rsa_e(void) { return OSSL_PKEY_PARAM_RSA_E; }
static inline const char *rig_param_ec_group(void) { return OSSL_PKEY_PARAM_GROUP_NAME; }
static inline const char *rig_param_ec_point(void) { return OSSL_PKEY_PARAM_PUB_KEY; }
static inline const char *rig_param_mac_digest(void) { return OSSL_MAC_PARAM_DIGEST; }
