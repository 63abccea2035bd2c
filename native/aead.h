/* AES-256-GCM by the OpenSSL that the interpreter itself has loaded, found when the module is.
 *
 * Nothing is linked or loaded for it: where the interpreter has no libcrypto of its own, or one that
 * does not give the known answer, Python seals. */
#ifndef SQS2PG_AEAD_H
#define SQS2PG_AEAD_H

#include <stddef.h>
#include <stdint.h>

enum { AEAD_KEY_BYTES = 32, AEAD_NONCE_BYTES = 12, AEAD_TAG_BYTES = 16 };

struct aead; /* for one thread at a time */

/* Look for it: 1; 0 where there is none. Call once, before anything else here. */
int aead_choose(void);

/* NULL where there is none, or no memory. */
struct aead *aead_new(void);

/* Wipe and free. */
void aead_free(struct aead *aead);

/* Use a key from now on; 0 where OpenSSL fails, as below. */
int aead_use(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES]);

/* Write the plaintext of so many bytes of ciphertext and tag; 0 where they do not open. Not in
 * place. */
int aead_open(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *aad,
              size_t aad_len, const uint8_t *sealed, size_t len, uint8_t *out);

/* Write ciphertext and tag, AEAD_TAG_BYTES more than the plaintext. */
int aead_seal(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *aad,
              size_t aad_len, const uint8_t *plaintext, size_t len, uint8_t *out);

#endif
