/* See renew.h. */
#include "renew.h"

#include <stdlib.h>
#include <string.h>

#include "mask.h"
#include "sha256.h"
#include "vault_rows.h"

enum { PLAIN_HEAD = 1 + AEAD_NONCE_BYTES, FIELDS_OF_A_ROW = 5, FIELDS_OF_A_PAIR = 2 };
enum { TOKEN_DIGITS = 32, VERSION_DIGITS_MAX = 4 };

enum {
    ADDRESS,
    MADE_BY,
    SUBJECT,
    GENERATION,
    VERSION,
    WRAPPED,
    FIELD,
    TOKEN,
    SEALED,
    VALUE_COLUMNS
};

struct sealed_value {
    Py_ssize_t row;
    struct slice subject, sealed, token, renewed; /* `renewed.at`: NULL where it keeps its token */
    uint32_t field;
    size_t plain;  /* where its cleartext begins */
    size_t masked; /* where its new token begins, if C code made it */
    int left;      /* Python makes its new token */
};

struct person { /* beside their first value */
    uint8_t key[AEAD_KEY_BYTES];
};

struct renew {
    struct column columns[VALUE_COLUMNS];
    Py_ssize_t count;
    const uint8_t **openers;
    struct part data_key, drawn, seen;
    PyObject *of_fields; /* associated data of a value, before its token */
    PyObject *pseudonyms; /* by field */
    PyObject *remask;
    struct mask *masks; /* by field; MASK_NONE: Python makes all new tokens */
    struct sealed_value *values; /* those that have a token of the old form */
    Py_ssize_t kept;             /* how many these are */
    const struct sealed_value **pairs;
    struct person *people; /* by row */
    struct aead *aead;
    struct text aad, plain, tokens, out, new_pairs, pairs_seen, sealed;
    Py_ssize_t left; /* values that Python masks */
    long long moved;
};

static int compare_texts(struct slice one, struct slice other)
{
    int order = memcmp(one.at, other.at, one.len < other.len ? one.len : other.len);
    return order ? order : (one.len > other.len) - (one.len < other.len);
}

/* By person and field; those of one as they came. */
static int by_person(const void *a, const void *b)
{
    const struct sealed_value *one = a, *other = b;
    int order = memcmp(one->subject.at, other->subject.at, REFERENCE_BYTES);
    if (order == 0)
        order = (one->field > other->field) - (one->field < other->field);
    return order ? order : (one->row > other->row) - (one->row < other->row);
}

/* By person, field and new token, as batches of ingest store them; those without one come last. */
static int by_new_token(const void *a, const void *b)
{
    const struct sealed_value *one = a, *other = b;
    int order = (one->renewed.at == NULL) - (other->renewed.at == NULL);
    if (order == 0)
        order = memcmp(one->subject.at, other->subject.at, REFERENCE_BYTES);
    if (order == 0)
        order = (one->field > other->field) - (one->field < other->field);
    if (order == 0 && one->renewed.at != NULL)
        order = compare_texts(one->renewed, other->renewed);
    return order ? order : (one->row > other->row) - (one->row < other->row);
}

static int same_person(const struct sealed_value *one, const struct sealed_value *other)
{
    return memcmp(one->subject.at, other->subject.at, REFERENCE_BYTES) == 0;
}

/* Open a person's data key, and use it from now on. */
static enum result use_person(struct renew *job, const struct sealed_value *one, uint8_t key[AEAD_KEY_BYTES])
{
    const uint8_t *opener = job->openers[one->row];
    bind_data_key(&job->aad, job->data_key, one->subject, job->columns[GENERATION].elements[one->row]);
    if (job->aad.failed)
        return NO_MEMORY;
    if (opener == NULL)
        return LEFT;
    if (!aead_use(job->aead, opener))
        return NOT_SEALED;
    if (!open_data_key(job->aead, &job->aad, job->columns[WRAPPED].elements[one->row], key))
        return LEFT;
    return aead_use(job->aead, key) ? DONE : NOT_SEALED;
}

/* Make the associated data of a value. */
static int bind_value(struct renew *job, const struct sealed_value *one, struct slice token)
{
    PyObject *prefix = PyTuple_GET_ITEM(job->of_fields, one->field);
    job->aad.len = 0;
    return text_append(&job->aad, PyBytes_AS_STRING(prefix), (size_t)PyBytes_GET_SIZE(prefix)) &&
           text_append_sized(&job->aad, token.at, token.len) &&
           text_append_sized(&job->aad, one->subject.at, one->subject.len);
}

static size_t plain_len(const struct sealed_value *one)
{
    return one->sealed.len - PLAIN_HEAD - AEAD_TAG_BYTES;
}

static enum result open_value(struct renew *job, struct sealed_value *one)
{
    const uint8_t *sealed = (const uint8_t *)one->sealed.at;
    if (one->sealed.len < PLAIN_HEAD + AEAD_TAG_BYTES || sealed[0] != FORMAT_PLAIN)
        return LEFT;
    char *to = text_room(&job->plain, plain_len(one) + 1);
    if (to == NULL || !bind_value(job, one, one->token))
        return NO_MEMORY;
    if (!aead_open(job->aead, sealed + 1, (const uint8_t *)job->aad.at, job->aad.len,
                   sealed + PLAIN_HEAD, one->sealed.len - PLAIN_HEAD, (uint8_t *)to))
        return LEFT;
    one->plain = job->plain.len;
    job->plain.len += plain_len(one);
    return DONE;
}

/* Open all values. They are sorted by person. */
static enum result open_all(struct renew *job)
{
    enum result result = DONE;
    struct sealed_value *first = NULL; /* of the person */
    qsort(job->values, (size_t)job->kept, sizeof *job->values, by_person);
    for (Py_ssize_t i = 0; i < job->kept && result == DONE; i++) {
        struct sealed_value *one = &job->values[i];
        if (first == NULL || !same_person(first, one)) {
            first = one;
            result = use_person(job, one, job->people[one->row].key);
        } else {
            memcpy(job->people[one->row].key, job->people[first->row].key, AEAD_KEY_BYTES);
        }
        if (result == DONE)
            result = open_value(job, one);
    }
    return result;
}

static enum result seal_value(struct renew *job, const struct sealed_value *one)
{
    const uint8_t *nonce = job->drawn.at + one->row * AEAD_NONCE_BYTES;
    size_t len = plain_len(one);
    job->sealed.len = 0;
    char *to = text_room(&job->sealed, one->sealed.len);
    if (to == NULL || !bind_value(job, one, one->renewed))
        return NO_MEMORY;
    *to = FORMAT_PLAIN;
    memcpy(to + 1, nonce, AEAD_NONCE_BYTES);
    return aead_seal(job->aead, nonce, (const uint8_t *)job->aad.at, job->aad.len,
                     (const uint8_t *)job->plain.at + one->plain, len, (uint8_t *)to + PLAIN_HEAD)
               ? DONE
               : NOT_SEALED;
}

static const char COPY_HEAD[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0"; /* and the terminating NUL */
static const char COPY_TAIL[] = {'\377', '\377'};

/* Append a row for COPY. `again`: whether the row before has the same value. */
static void put_row(struct renew *job, const struct sealed_value *one, int again)
{
    static const char FIELDS[] = {0, FIELDS_OF_A_ROW};
    const char repeated = (char)again;
    struct slice address = job->columns[ADDRESS].elements[one->row];
    struct slice made_by = job->columns[MADE_BY].elements[one->row];
    text_append(&job->out, FIELDS, sizeof FIELDS);
    text_append_sized(&job->out, address.at, address.len);
    text_append_sized(&job->out, made_by.at, made_by.len);
    text_append_sized(&job->out, one->renewed.at, one->renewed.len);
    text_append_sized(&job->out, job->sealed.at, one->sealed.len);
    text_append_sized(&job->out, &repeated, 1);
}

/* Seal all values that have a new token, and write the rows in their order. */
static enum result seal_all(struct renew *job)
{
    enum result result = DONE;
    const struct sealed_value *before = NULL;
    qsort(job->values, (size_t)job->kept, sizeof *job->values, by_new_token);
    text_append(&job->out, COPY_HEAD, sizeof COPY_HEAD);
    for (Py_ssize_t i = 0; i < job->kept && result == DONE; i++) {
        const struct sealed_value *one = &job->values[i];
        if (one->renewed.at == NULL)
            break;
        int of_same = before != NULL && same_person(before, one);
        if (!of_same && !aead_use(job->aead, job->people[one->row].key))
            return NOT_SEALED;
        result = seal_value(job, one);
        if (result == DONE)
            put_row(job, one, of_same && before->field == one->field &&
                                  before->renewed.len == one->renewed.len &&
                                  memcmp(before->renewed.at, one->renewed.at, one->renewed.len) == 0);
        before = one;
        job->moved++;
    }
    text_append(&job->out, COPY_TAIL, sizeof COPY_TAIL);
    return result == DONE && job->out.failed ? NO_MEMORY : result;
}

static int by_old_token(const void *a, const void *b)
{
    const struct sealed_value *one = *(const struct sealed_value *const *)a;
    const struct sealed_value *other = *(const struct sealed_value *const *)b;
    int order = compare_texts(one->token, other->token);
    return order ? order : (one->row > other->row) - (one->row < other->row);
}

/* Write the pairs of tokens that were `seen` or not, each once, by old token. */
static enum result put_pairs(struct renew *job, int seen, struct text *out)
{
    static const char FIELDS[] = {0, FIELDS_OF_A_PAIR};
    const struct sealed_value *before = NULL;
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < job->moved; i++)
        if ((job->seen.at[job->values[i].row] != 0) == seen)
            job->pairs[count++] = &job->values[i];
    qsort(job->pairs, (size_t)count, sizeof *job->pairs, by_old_token);
    text_append(out, COPY_HEAD, sizeof COPY_HEAD);
    for (Py_ssize_t i = 0; i < count; i++) {
        const struct sealed_value *one = job->pairs[i];
        if (before != NULL && compare_texts(before->token, one->token) == 0)
            continue;
        before = one;
        text_append(out, FIELDS, sizeof FIELDS);
        text_append_sized(out, one->token.at, one->token.len);
        text_append_sized(out, one->renewed.at, one->renewed.len);
    }
    text_append(out, COPY_TAIL, sizeof COPY_TAIL);
    return out->failed ? NO_MEMORY : DONE;
}

/* Make the new tokens that C code can make. */
static enum result mask_all(struct renew *job)
{
    for (Py_ssize_t i = 0; i < job->kept; i++) {
        struct sealed_value *one = &job->values[i];
        const struct mask *mask = &job->masks[one->field];
        struct value text = {.at = job->plain.at + one->plain, .len = plain_len(one), .is = STRING,
                             .ascii = 1};
        for (size_t at = 0; at < text.len && text.ascii; at++)
            text.ascii = (unsigned char)text.at[at] < 0x80;
        one->masked = job->tokens.len;
        one->left = mask->operator == MASK_NONE || !write_masked(mask, &text, &job->tokens);
        job->left += one->left;
        one->renewed.len = (uint32_t)(job->tokens.len - one->masked);
    }
    for (Py_ssize_t i = 0; i < job->kept; i++) { /* now that they stay where they are */
        struct sealed_value *one = &job->values[i];
        one->renewed.at = one->left ? NULL : job->tokens.at + one->masked;
    }
    return job->tokens.failed ? NO_MEMORY : DONE;
}

/* The fields, old tokens and cleartexts of the values that are left, in three lists; NULL with an
 * exception. */
static PyObject *list_values(const struct renew *job)
{
    PyObject *fields = PyList_New(job->left), *tokens = PyList_New(job->left),
             *texts = PyList_New(job->left);
    int made = fields != NULL && tokens != NULL && texts != NULL;
    for (Py_ssize_t i = 0, at = 0; made && i < job->kept; i++) {
        const struct sealed_value *one = &job->values[i];
        if (!one->left)
            continue;
        PyObject *field = PyLong_FromUnsignedLong(one->field);
        PyObject *token = PyUnicode_DecodeUTF8(one->token.at, (Py_ssize_t)one->token.len, NULL);
        PyObject *text = PyUnicode_DecodeUTF8(job->plain.at + one->plain, (Py_ssize_t)plain_len(one),
                                              "surrogatepass");
        made = field != NULL && token != NULL && text != NULL;
        PyList_SET_ITEM(fields, at, field);
        PyList_SET_ITEM(tokens, at, token);
        PyList_SET_ITEM(texts, at++, text);
    }
    if (made)
        return Py_BuildValue("NNN", fields, tokens, texts);
    Py_XDECREF(fields);
    Py_XDECREF(tokens);
    Py_XDECREF(texts);
    return NULL;
}

/* Ask for the new tokens that are left, and note where they are; NULL with an exception. They live as
 * long as the list that is returned. */
static PyObject *remask_left(struct renew *job)
{
    if (job->left == 0)
        return PyList_New(0);
    PyObject *lists = list_values(job);
    PyObject *renewed = lists == NULL ? NULL : PyObject_CallObject(job->remask, lists);
    Py_XDECREF(lists);
    int made = renewed != NULL &&
               ((PyList_CheckExact(renewed) && PyList_GET_SIZE(renewed) == job->left) || refuse_rows());
    for (Py_ssize_t i = 0, at = 0; made && i < job->kept; i++) {
        if (!job->values[i].left)
            continue;
        PyObject *token = PyList_GET_ITEM(renewed, at++);
        Py_ssize_t len;
        if (token == Py_None)
            continue;
        const char *text = PyUnicode_Check(token) ? PyUnicode_AsUTF8AndSize(token, &len) : NULL;
        made = text != NULL || PyErr_Occurred() || refuse_rows();
        made = made && text != NULL;
        if (made)
            job->values[i].renewed = (struct slice){text, (uint32_t)len};
    }
    if (!made)
        Py_CLEAR(renewed);
    return renewed;
}

/* Read how C code makes the new tokens of each field; 0 with an exception. */
static int read_masks(struct renew *job)
{
    Py_ssize_t fields = PyTuple_GET_SIZE(job->of_fields);
    if (PyTuple_GET_SIZE(job->pseudonyms) != fields)
        return refuse_rows();
    job->masks = PyMem_Calloc((size_t)fields + 1, sizeof *job->masks);
    if (job->masks == NULL)
        return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < fields; i++) {
        PyObject *given = PyTuple_GET_ITEM(job->pseudonyms, i);
        struct mask *mask = &job->masks[i];
        int kind;
        const char *prefix, *key;
        Py_ssize_t prefix_len, key_len;
        if (given == Py_None)
            continue;
        if (!PyTuple_Check(given) ||
            !PyArg_ParseTuple(given, "iy#y#", &kind, &prefix, &prefix_len, &key, &key_len))
            return PyErr_Occurred() ? 0 : refuse_rows();
        if (kind < 0 || kind >= KIND_COUNT || prefix_len > PREFIX_MAX || key_len > SHA256_BLOCK)
            return refuse_rows();
        mask->operator = MASK_PSEUDONYM;
        mask->kind = (enum kind)kind;
        memcpy(mask->prefix, prefix, (size_t)prefix_len);
        mask->prefix_len = (size_t)prefix_len;
        hmac_key_set(&mask->key, (const uint8_t *)key, (size_t)key_len);
    }
    return 1;
}

/* Whether a token is of the form that pseudonyms have: the same as `OLD` of vault/token_map.py. */
static int has_old_form(struct slice token)
{
    uint32_t at = 1;
    if (token.len < 2 || token.at[0] != 'v' || token.at[1] == '0')
        return 0;
    while (at < token.len && at <= VERSION_DIGITS_MAX && token.at[at] >= '0' && token.at[at] <= '9')
        at++;
    if (at == 1 || at + 1 + TOKEN_DIGITS != token.len || token.at[at] != '_')
        return 0;
    for (at++; at < token.len; at++)
        if (!((token.at[at] >= '0' && token.at[at] <= '9') ||
              (token.at[at] >= 'a' && token.at[at] <= 'f')))
            return 0;
    return 1;
}

/* Gather the values in one array; 0 with an exception. */
static int gather(struct renew *job)
{
    struct column *columns = job->columns;
    job->values = PyMem_Calloc((size_t)job->count + 1, sizeof *job->values);
    job->people = PyMem_Calloc((size_t)job->count + 1, sizeof *job->people);
    job->pairs = PyMem_Calloc((size_t)job->count + 1, sizeof *job->pairs);
    job->aead = aead_new();
    if (job->values == NULL || job->people == NULL || job->pairs == NULL)
        return PyErr_NoMemory() != NULL;
    if (job->aead == NULL)
        return not_done(NOT_SEALED) != NULL;
    if (!read_masks(job))
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(job->of_fields); i++)
        if (!PyBytes_CheckExact(PyTuple_GET_ITEM(job->of_fields, i)))
            return refuse_rows();
    for (Py_ssize_t i = 0; i < job->count; i++) {
        uint32_t field = read_number(columns[FIELD].elements[i].at) - 1;
        if (field >= PyTuple_GET_SIZE(job->of_fields))
            return refuse_rows();
        if (has_old_form(columns[TOKEN].elements[i]))
            job->values[job->kept++] = (struct sealed_value){.row = i,
                                                             .field = field,
                                                             .subject = columns[SUBJECT].elements[i],
                                                             .sealed = columns[SEALED].elements[i],
                                                             .token = columns[TOKEN].elements[i]};
    }
    return (job->drawn.len == job->count * AEAD_NONCE_BYTES && job->seen.len == job->count) ||
           refuse_rows();
}

/* Open, ask for the new tokens, seal. */
static PyObject *renew(struct renew *job)
{
    enum result result;
    Py_BEGIN_ALLOW_THREADS;
    result = open_all(job);
    if (result == DONE)
        result = mask_all(job);
    Py_END_ALLOW_THREADS;
    if (result != DONE)
        return not_done(result);
    PyObject *renewed = remask_left(job);
    if (renewed == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    result = seal_all(job);
    if (result == DONE)
        result = put_pairs(job, 0, &job->new_pairs);
    if (result == DONE)
        result = put_pairs(job, 1, &job->pairs_seen);
    Py_END_ALLOW_THREADS;
    Py_DECREF(renewed);
    return result == DONE
               ? Py_BuildValue("Lny#y#y#", job->moved, job->kept, job->new_pairs.at,
                               (Py_ssize_t)job->new_pairs.len, job->pairs_seen.at,
                               (Py_ssize_t)job->pairs_seen.len, job->out.at,
                               (Py_ssize_t)job->out.len)
               : not_done(result);
}

static void forget(struct renew *job)
{
    if (job->people != NULL)
        wipe(job->people, (size_t)job->count * sizeof *job->people);
    if (job->masks != NULL)
        wipe(job->masks, (size_t)PyTuple_GET_SIZE(job->of_fields) * sizeof *job->masks);
    PyMem_Free(job->people);
    PyMem_Free(job->masks);
    PyMem_Free(job->values);
    PyMem_Free(job->pairs);
    PyMem_Free(job->openers);
    forget_columns(job->columns, VALUE_COLUMNS);
    aead_free(job->aead);
    text_forget(&job->aad);
    text_forget(&job->plain);
    text_forget(&job->tokens);
    text_forget(&job->out);
    text_forget(&job->new_pairs);
    text_forget(&job->pairs_seen);
    text_forget(&job->sealed);
}

PyObject *renew_values(PyObject *module, PyObject *args)
{
    (void)module;
    struct renew job = {.columns = {[ADDRESS].size = ADDRESS_BYTES, [MADE_BY].size = 4,
                                    [SUBJECT].size = REFERENCE_BYTES, [GENERATION].size = 4,
                                    [VERSION].size = VERSION_BYTES, [FIELD].size = 4}};
    struct part rows;
    PyObject *derive, *found = NULL, *known = NULL;
    if (!PyArg_ParseTuple(args, "y#nO(y#O!)O!Oy#y#", &rows.at, &rows.len, &job.count, &derive,
                          &job.data_key.at, &job.data_key.len, &PyTuple_Type, &job.of_fields,
                          &PyTuple_Type, &job.pseudonyms, &job.remask, &job.drawn.at,
                          &job.drawn.len, &job.seen.at, &job.seen.len))
        return NULL;
    if (read_rows(rows, job.count, job.columns, VALUE_COLUMNS) &&
        gather(&job) && (known = PyDict_New()) != NULL &&
        (job.openers = find_openers(derive, job.columns[VERSION].elements,
                                    job.columns[WRAPPED].elements, job.count, known)) != NULL)
        found = renew(&job);
    Py_XDECREF(known);
    forget(&job);
    return found;
}
