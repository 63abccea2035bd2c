/* See aead.h. */
#include "aead.h"

#include <limits.h>
#include <string.h>

#if defined(__linux__) || defined(__APPLE__)
#define HAVE_DLOPEN 1
#include <dlfcn.h>
#endif

/* EVP_CTRL_AEAD_GET_TAG and _SET_TAG of openssl/evp.h, the same in 1.1 and 3. */
enum { GET_TAG = 0x10, SET_TAG = 0x11 };
enum { OPEN = 0, SEAL = 1 };

/* Of openssl/evp.h; their types and numbers are part of OpenSSL's ABI. */
static struct {
    void *(*ctx_new)(void);
    void (*ctx_free)(void *ctx);
    int (*init)(void *ctx, const void *cipher, void *engine, const unsigned char *key,
                const unsigned char *iv, int direction);
    int (*update)(void *ctx, unsigned char *out, int *out_len, const unsigned char *in, int len);
    int (*final)(void *ctx, unsigned char *out, int *out_len);
    int (*ctrl)(void *ctx, int type, int arg, void *ptr);
    const void *cipher;
} crypto;

#ifdef HAVE_DLOPEN

static const char *const NAMES[] = {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib",
                                    "libcrypto.1.1.dylib"};

/* A function's address; the standard has no cast from an object's. */
static int find(void *library, const char *name, void *into)
{
    void *found = dlsym(library, name);
    memcpy(into, &found, sizeof found);
    return found != NULL;
}

static int find_all(void *library)
{
    const void *(*fetch)(void *, const char *, const char *);
    const void *(*built_in)(void);
    if (!find(library, "EVP_CIPHER_CTX_new", &crypto.ctx_new) ||
        !find(library, "EVP_CIPHER_CTX_free", &crypto.ctx_free) ||
        !find(library, "EVP_CipherInit_ex", &crypto.init) ||
        !find(library, "EVP_CipherUpdate", &crypto.update) ||
        !find(library, "EVP_CipherFinal_ex", &crypto.final) ||
        !find(library, "EVP_CIPHER_CTX_ctrl", &crypto.ctrl))
        return 0;
    if (find(library, "EVP_CIPHER_fetch", &fetch)) /* OpenSSL 3 would fetch it at each use */
        crypto.cipher = fetch(NULL, "AES-256-GCM", NULL);
    else if (find(library, "EVP_aes_256_gcm", &built_in))
        crypto.cipher = built_in();
    return crypto.cipher != NULL;
}

#endif

struct aead *aead_new(void)
{
    struct aead *aead = crypto.cipher != NULL ? crypto.ctx_new() : NULL;
    if (aead != NULL && !crypto.init(aead, crypto.cipher, NULL, NULL, NULL, SEAL)) {
        crypto.ctx_free(aead);
        return NULL;
    }
    return aead;
}

void aead_free(struct aead *aead)
{
    if (aead != NULL)
        crypto.ctx_free(aead);
}

int aead_use(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES])
{
    return crypto.init(aead, NULL, NULL, key, NULL, SEAL) == 1;
}

int aead_seal(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *aad,
              size_t aad_len, const uint8_t *plaintext, size_t len, uint8_t *out)
{
    int wrote;
    return aad_len <= INT_MAX && len <= INT_MAX &&
           crypto.init(aead, NULL, NULL, NULL, nonce, SEAL) == 1 &&
           crypto.update(aead, NULL, &wrote, aad, (int)aad_len) == 1 &&
           (len == 0 || crypto.update(aead, out, &wrote, plaintext, (int)len) == 1) &&
           crypto.final(aead, out + len, &wrote) == 1 &&
           crypto.ctrl(aead, GET_TAG, AEAD_TAG_BYTES, out + len) == 1;
}

int aead_open(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *aad,
              size_t aad_len, const uint8_t *sealed, size_t len, uint8_t *out)
{
    int wrote;
    uint8_t tag[AEAD_TAG_BYTES]; /* OpenSSL takes it from where it may write */
    if (aad_len > INT_MAX || len > INT_MAX || len < sizeof tag)
        return 0;
    len -= sizeof tag;
    memcpy(tag, sealed + len, sizeof tag);
    return crypto.init(aead, NULL, NULL, NULL, nonce, OPEN) == 1 &&
           crypto.ctrl(aead, SET_TAG, AEAD_TAG_BYTES, tag) == 1 &&
           crypto.update(aead, NULL, &wrote, aad, (int)aad_len) == 1 &&
           (len == 0 || crypto.update(aead, out, &wrote, sealed, (int)len) == 1) &&
           crypto.final(aead, out + len, &wrote) == 1;
}

/* Test case 16 of the GCM specification (McGrew and Viega), with its first 16 bytes of plaintext
 * alone: the ciphertext is the specification's, the tag was made by another implementation. */
static int agrees(void)
{
    static const uint8_t KEY[AEAD_KEY_BYTES] = {
        0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08,
        0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08};
    static const uint8_t NONCE[AEAD_NONCE_BYTES] = {0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce,
                                                    0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88};
    static const uint8_t AAD[20] = {0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed,
                                    0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab, 0xad, 0xda, 0xd2};
    static const uint8_t PLAINTEXT[16] = {0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5,
                                          0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5, 0x26, 0x9a};
    static const uint8_t SEALED[32] = {0x52, 0x2d, 0xc1, 0xf0, 0x99, 0x56, 0x7d, 0x07,
                                       0xf4, 0x7f, 0x37, 0xa3, 0x2a, 0x84, 0x42, 0x7d,
                                       0x5b, 0x1c, 0xf9, 0x1b, 0x45, 0xc5, 0x9c, 0xa2,
                                       0xe0, 0x25, 0xe6, 0xbe, 0xc8, 0xb6, 0xa6, 0xea};
    uint8_t out[sizeof SEALED], opened[sizeof PLAINTEXT];
    struct aead *aead = aead_new();
    int same = aead != NULL && aead_use(aead, KEY) &&
               aead_seal(aead, NONCE, AAD, sizeof AAD, PLAINTEXT, sizeof PLAINTEXT, out) &&
               memcmp(out, SEALED, sizeof out) == 0 &&
               aead_open(aead, NONCE, AAD, sizeof AAD, out, sizeof out, opened) &&
               memcmp(opened, PLAINTEXT, sizeof opened) == 0;
    out[sizeof out - 1] ^= 1;
    same = same && !aead_open(aead, NONCE, AAD, sizeof AAD, out, sizeof out, opened);
    aead_free(aead);
    return same;
}

int aead_choose(void)
{
#ifdef HAVE_DLOPEN
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && crypto.cipher == NULL; i++) {
        /* Only one that is there already; it stays, since the interpreter's own modules use it. */
        void *library = dlopen(NAMES[i], RTLD_NOLOAD | RTLD_LAZY);
        if (library != NULL && !find_all(library))
            crypto.cipher = NULL;
    }
#endif
    if (crypto.cipher != NULL && !agrees())
        crypto.cipher = NULL;
    return crypto.cipher != NULL;
}
