/* See rewrap.h. */
#include "rewrap.h"

#include <string.h>

#include "sha256.h"
#include "vault_rows.h"

enum { ADDRESS, SUBJECT, GENERATION, VERSION, WRAPPED, KEY_COLUMNS };

struct rewrap {
    struct column columns[KEY_COLUMNS];
    Py_ssize_t count;
    const uint8_t **openers;
    struct wrappings wrappings;
    struct part prefix, drawn;
    struct aead *from, *to;
    struct text aad, addresses, subjects, out;
};

/* Append a wrapped key as an element of an array. */
static enum result put_wrapped(struct rewrap *job, const uint8_t *first, const uint8_t *nonce,
                               const uint8_t key[AEAD_KEY_BYTES])
{
    uint8_t wrapped[WRAPPED_BYTES] = {FORMAT_WRAPPED};
    memcpy(wrapped + 1, first, FIRST_HALF_BYTES);
    memcpy(wrapped + 1 + FIRST_HALF_BYTES, nonce, AEAD_NONCE_BYTES);
    if (!aead_seal(job->to, nonce, (const uint8_t *)job->aad.at, job->aad.len, key, AEAD_KEY_BYTES,
                   wrapped + WRAPPED_HEAD))
        return NOT_SEALED;
    return text_append_sized(&job->out, wrapped, sizeof wrapped) ? DONE : NO_MEMORY;
}

static enum result rewrap_all(struct rewrap *job)
{
    uint8_t key[AEAD_KEY_BYTES];
    const uint8_t *opener = NULL, *first = NULL;
    enum result result = DONE;
    for (Py_ssize_t i = 0; i < job->count && result == DONE; i++) {
        struct slice wrapped = job->columns[WRAPPED].elements[i];
        if (i % job->wrappings.each == 0 &&
            (first = use_wrapping(job->to, &job->wrappings, i)) == NULL)
            result = NOT_SEALED;
        if (result == DONE && job->openers[i] == NULL)
            result = LEFT;
        if (result == DONE && job->openers[i] != opener && !aead_use(job->from, job->openers[i]))
            result = NOT_SEALED;
        opener = job->openers[i];
        bind_data_key(&job->aad, job->prefix, job->columns[SUBJECT].elements[i],
                      job->columns[GENERATION].elements[i]);
        if (result == DONE && job->aad.failed)
            result = NO_MEMORY;
        if (result == DONE && !open_data_key(job->from, &job->aad, wrapped, key))
            result = LEFT;
        if (result == DONE)
            result = put_wrapped(job, first, job->drawn.at + i * AEAD_NONCE_BYTES, key);
        struct slice address = job->columns[ADDRESS].elements[i];
        struct slice subject = job->columns[SUBJECT].elements[i];
        text_append_sized(&job->addresses, address.at, address.len);
        text_append_sized(&job->subjects, subject.at, subject.len);
    }
    if (job->addresses.failed || job->subjects.failed)
        result = NO_MEMORY;
    wipe(key, sizeof key);
    return result;
}

/* Whether there are enough wrappings, nonces and contexts; 0 with an exception. */
static int check_rewrap(struct rewrap *job)
{
    if (job->drawn.len != job->count * AEAD_NONCE_BYTES ||
        !check_wrappings(&job->wrappings, job->count))
        return refuse_rows();
    job->from = aead_new();
    job->to = aead_new();
    if (job->from == NULL || job->to == NULL)
        return not_done(NOT_SEALED) != NULL;
    return 1;
}

PyObject *rewrap_keys(PyObject *module, PyObject *args)
{
    (void)module;
    struct rewrap job = {.columns = {[ADDRESS].size = ADDRESS_BYTES, [SUBJECT].size = REFERENCE_BYTES,
                                     [GENERATION].size = 4, [VERSION].size = VERSION_BYTES}};
    struct column *columns = job.columns;
    struct part rows;
    PyObject *derive, *found = NULL, *known = NULL;
    if (!PyArg_ParseTuple(args, "y#nOO!ny#y#", &rows.at, &rows.len, &job.count, &derive,
                          &PyTuple_Type, &job.wrappings.pairs, &job.wrappings.each, &job.prefix.at,
                          &job.prefix.len, &job.drawn.at, &job.drawn.len))
        return NULL;
    if (read_rows(rows, job.count, columns, KEY_COLUMNS) && check_rewrap(&job) &&
        (known = PyDict_New()) != NULL &&
        (job.openers = find_openers(derive, columns[VERSION].elements, columns[WRAPPED].elements,
                                    job.count, known)) != NULL) {
        enum result result;
        Py_BEGIN_ALLOW_THREADS;
        result = rewrap_all(&job);
        Py_END_ALLOW_THREADS;
        found = result == DONE
                    ? Py_BuildValue("y#y#y#", job.addresses.at, (Py_ssize_t)job.addresses.len,
                                    job.subjects.at, (Py_ssize_t)job.subjects.len, job.out.at,
                                    (Py_ssize_t)job.out.len)
                    : not_done(result);
    }
    Py_XDECREF(known);
    PyMem_Free(job.openers);
    forget_columns(columns, KEY_COLUMNS);
    aead_free(job.from);
    aead_free(job.to);
    text_forget(&job.aad);
    text_forget(&job.addresses);
    text_forget(&job.subjects);
    text_forget(&job.out);
    return found;
}
