/* Rows of the vault, each column in PostgreSQL's binary format, and the keys that open them: for what a
 * rotation does with the rows of a batch. Whatever does not open here is left to Python, the whole
 * batch, and Python says why. The formats are those of keys/aead.py and vault/crypto.py. */
#ifndef SQS2PG_VAULT_ROWS_H
#define SQS2PG_VAULT_ROWS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "aead.h"
#include "originals.h"
#include "text.h"

enum {
    FIRST_HALF_BYTES = 12, /* of a nonce of XAES-256-GCM */
    ADDRESS_BYTES = 6,
    VERSION_BYTES = 4,
    WRAPPED_HEAD = 1 + FIRST_HALF_BYTES + AEAD_NONCE_BYTES,
    WRAPPED_BYTES = WRAPPED_HEAD + AEAD_KEY_BYTES + AEAD_TAG_BYTES,
    FORMAT_WRAPPED = 1,
    FORMAT_PLAIN = 2
};

struct part {
    const uint8_t *at;
    Py_ssize_t len;
};

struct column {
    size_t size; /* of an element; 0: any */
    struct slice *elements;
};

/* What seals in format 1: a derived key and the first half of its nonces, for each `each` texts in
 * turn. */
struct wrappings {
    PyObject *pairs; /* a tuple */
    Py_ssize_t each;
};

/* LEFT: Python must do the batch. */
enum result { DONE, LEFT, NO_MEMORY, NOT_SEALED };

/* What another result than DONE means to the caller: NULL with an exception, or None. */
PyObject *not_done(enum result result);

/* Raise ValueError; returns 0. */
int refuse_rows(void);

uint32_t read_number(const void *from);

/* Find the elements of each column in so many rows, which stand one behind the other, and in each the
 * columns; 0 with an exception. They live as long as the rows. */
int read_rows(struct part rows, Py_ssize_t count, struct column *columns, size_t number);

void forget_columns(struct column *columns, size_t number);

/* Return for each row the derived key that opens its wrapped key, made by `derive` and kept by
 * `known`; of a row that Python must open it is NULL. NULL with an exception. */
const uint8_t **find_openers(PyObject *derive, const struct slice *versions,
                             const struct slice *wrapped, Py_ssize_t count, PyObject *known);

/* Whether these are the pairs of so many texts; sets no exception. */
int check_wrappings(const struct wrappings *wrappings, Py_ssize_t count);

/* Use the derived key of the text with this number from now on, and return the first half of its
 * nonce; NULL where OpenSSL fails. */
const uint8_t *use_wrapping(struct aead *aead, const struct wrappings *wrappings, Py_ssize_t number);

/* Make the associated data of a person's data key. */
void bind_data_key(struct text *aad, struct part prefix, struct slice subject,
                   struct slice generation);

/* Open a data key by a context that has its derived key; 0 where it does not open. */
int open_data_key(struct aead *aead, const struct text *aad, struct slice wrapped,
                  uint8_t key[AEAD_KEY_BYTES]);

#endif
