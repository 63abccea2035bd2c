/* See mask.h. */
#include "mask.h"

#include <string.h>

#include "convert.h"

/* As in `mask/canonical.py`. */
enum { LOCAL_MAX = 64, DOMAIN_MAX = 255, PHONE_DIGITS_MAX = 15, UUID_BYTES = 16 };
enum { FORM_MAX = LOCAL_MAX + 1 + DOMAIN_MAX };
enum { SHOWN_MAX = 4 }; /* as in `mask/partial.py` */

struct form { /* the canonical form of a value */
    const uint8_t *at;
    size_t len;
    uint8_t bytes[FORM_MAX];
};

struct range {
    uint32_t first, last;
};

/* Characters that Normalization Form C leaves as they are, whatever stands beside them: quick check
 * "yes" and combining class 0 (Unicode Standard Annex #15). The tests prove it of each. */
static const struct range STABLE[] = {
    {0x0000, 0x02ff},   {0x0388, 0x03ff},   {0x0400, 0x0482},   {0x048a, 0x0556},
    {0x05d0, 0x05ea},   {0x0621, 0x064a},   {0x0e01, 0x0e30},   {0x1e00, 0x1ef9},
    {0x2010, 0x2027},   {0x2030, 0x205e},   {0x20a0, 0x20c0},   {0x2500, 0x27bf},
    {0x3001, 0x3029},   {0x3041, 0x3096},   {0x309d, 0x30ff},   {0x4e00, 0x9fff},
    {0xac00, 0xd7a3},   {0x1f300, 0x1faff},
};

static int is_stable(uint32_t character)
{
    for (size_t i = 0; i < sizeof STABLE / sizeof *STABLE; i++)
        if (character <= STABLE[i].last)
            return character >= STABLE[i].first;
    return 0;
}

/* One character of valid UTF-8. */
static const char *next_character(const char *at, uint32_t *character)
{
    unsigned char first = (unsigned char)*at++;
    int more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    *character = more == 0 ? first : first & (0x3fu >> more);
    while (more--)
        *character = *character << 6 | ((unsigned char)*at++ & 0x3f);
    return at;
}

static int text_form(const struct value *value, struct form *form)
{
    form->at = (const uint8_t *)value->at;
    form->len = value->len;
    if (value->ascii)
        return 1;
    for (const char *at = value->at, *end = at + value->len; at < end;) {
        uint32_t character;
        at = next_character(at, &character);
        if (!is_stable(character))
            return 0;
    }
    return 1;
}

static int ip_form(const struct value *value, struct form *form)
{
    form->len = 4;
    return read_ipv4(value->at, value->len, form->bytes);
}

/* A text as long as an address's form gets a byte more that no text has. With a colon it may be an
 * address of version 6, which Python reads. */
static int ip_or_text_form(const struct value *value, struct form *form)
{
    if (ip_form(value, form))
        return 1;
    if (memchr(value->at, ':', value->len) != NULL || !text_form(value, form))
        return 0;
    if (form->len == 4 || form->len == 16) {
        memcpy(form->bytes, form->at, form->len);
        form->at = form->bytes;
        form->bytes[form->len++] = 0xff;
    }
    return 1;
}

/* Lower case; what is before the last `@` and what is behind it have their limits. */
static int email_form(const struct value *value, struct form *form)
{
    size_t at = SIZE_MAX;
    if (!value->ascii || value->len > FORM_MAX)
        return 0;
    for (size_t i = 0; i < value->len; i++) {
        char c = value->at[i];
        if (c <= ' ' || c == 0x7f)
            return 0;
        if (c == '@')
            at = i;
        form->bytes[i] = (uint8_t)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    form->len = value->len;
    return at != SIZE_MAX && at >= 1 && at <= LOCAL_MAX && value->len - at - 1 >= 1 &&
           value->len - at - 1 <= DOMAIN_MAX;
}

static int phone_form(const struct value *value, struct form *form)
{
    form->len = 0;
    for (size_t i = 0; i < value->len; i++) {
        char c = value->at[i];
        if (c >= '0' && c <= '9') {
            if (form->len == PHONE_DIGITS_MAX)
                return 0;
            form->bytes[form->len++] = (uint8_t)c;
        } else if (c == '\0' || (strchr(" -./()", c) == NULL && !(c == '+' && i == 0))) {
            return 0;
        }
    }
    return form->len >= 1;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 digits, with hyphens in all four places or in none; other spellings are rare. */
static int uuid_form(const struct value *value, struct form *form)
{
    const char *at = value->at;
    int dashes = value->len == UUID_CHARS;
    if (!dashes && value->len != 2 * UUID_BYTES)
        return 0;
    for (size_t i = 0; i < UUID_BYTES; i++) {
        if (dashes && (i == 4 || i == 6 || i == 8 || i == 10) && *at++ != '-')
            return 0;
        int high = hex_value(at[0]), low = hex_value(at[1]);
        if (high < 0 || low < 0)
            return 0;
        form->bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    form->len = UUID_BYTES;
    return 1;
}

static int canonical(enum kind kind, const struct value *value, struct form *form)
{
    form->at = form->bytes;
    switch (kind) {
    case KIND_TEXT:
        return text_form(value, form);
    case KIND_IP:
        return ip_form(value, form);
    case KIND_EMAIL:
        return email_form(value, form);
    case KIND_PHONE:
        return phone_form(value, form);
    case KIND_UUID:
        return uuid_form(value, form);
    case KIND_IP_OR_TEXT:
        return ip_or_text_form(value, form);
    case KIND_EXACT:
        form->at = (const uint8_t *)value->at;
        form->len = value->len;
        return 1;
    default:
        return 0;
    }
}

static int write_pseudonym(const struct mask *mask, const struct form *form, struct text *out)
{
    uint8_t code[SHA256_BYTES];
    char token[PREFIX_MAX + 32];
    hmac_sha256(&mask->key, form->at, form->len, code);
    memcpy(token, mask->prefix, mask->prefix_len);
    const char *end = write_hex(token + mask->prefix_len, code, 16);
    return text_append(out, token, (size_t)(end - token));
}

static int write_hash(const struct value *value, struct text *out)
{
    uint8_t code[SHA256_BYTES];
    char hex[2 * SHA256_BYTES];
    sha256((const uint8_t *)value->at, value->len, code);
    write_hex(hex, code, SHA256_BYTES);
    return text_append(out, hex, sizeof hex);
}

static int write_network(const struct value *value, struct text *out)
{
    uint8_t address[4];
    if (!read_ipv4(value->at, value->len, address))
        return 0;
    size_t len = value->len; /* all but the last number */
    while (value->at[len - 1] != '.')
        len--;
    return text_append(out, value->at, len) && text_append(out, "0", 1);
}

/* Characters of a partial mask, which stand in the line as they are; 0 where one could not. */
static int append_shown(const char *at, size_t len, struct text *out)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] < ' ' || at[i] > '~' || at[i] == '\\')
            return 0;
    return text_append(out, at, len);
}

/* How many characters of so many are shown, as `mask/partial.py` counts. */
static size_t shown_of(size_t len)
{
    size_t count = len * 2 / 5;
    return count < SHOWN_MAX ? count : SHOWN_MAX;
}

static int write_partial_email(const struct form *form, struct text *out)
{
    const char *all = (const char *)form->at;
    size_t local = form->len;
    while (all[--local] != '@')
        ;
    return append_shown(all, shown_of(local) > 0, out) && text_append(out, "***", 3) &&
           append_shown(all + local, form->len - local, out);
}

static int write_partial_ip(const struct value *value, struct text *out)
{
    size_t len = 0; /* of two numbers and their dots: an address is spelled in one way */
    for (int dots = 0; dots < 2; dots += value->at[len++] == '.')
        ;
    return text_append(out, value->at, len) && text_append(out, "***", 3);
}

static int write_partial(enum kind kind, const struct value *value, const struct form *form,
                         struct text *out)
{
    char digits[2 * UUID_BYTES];
    const char *all = (const char *)form->at;
    size_t len = form->len;
    if (kind == KIND_EMAIL)
        return write_partial_email(form, out);
    if (kind == KIND_IP)
        return write_partial_ip(value, out);
    if (kind == KIND_UUID) {
        write_hex(digits, form->at, UUID_BYTES);
        all = digits;
        len = sizeof digits;
    } else if (kind == KIND_TEXT && !value->ascii) {
        return 0; /* a character may belong to the one before it */
    }
    size_t count = shown_of(len);
    return text_append(out, "***", 3) && append_shown(all + len - count, count, out);
}

int write_masked(const struct mask *mask, const struct value *value, struct text *out)
{
    struct form form;
    if (mask->operator == MASK_TRUNCATE_IP)
        return write_network(value, out);
    /* A value that is not of its kind is a fault under every operator; any text is a text. */
    int checked = mask->kind != KIND_TEXT || mask->operator == MASK_PSEUDONYM ||
                  mask->operator == MASK_PARTIAL;
    if (checked && !canonical(mask->kind, value, &form))
        return 0;
    switch (mask->operator) {
    case MASK_KEEP:
        return write_escaped(value, out);
    case MASK_PSEUDONYM:
        return write_pseudonym(mask, &form, out);
    case MASK_SHA256:
        return write_hash(value, out);
    case MASK_REDACT:
        return text_append(out, "[redacted]", 10);
    case MASK_NULLIFY:
        return text_append(out, "\\N", 2);
    case MASK_PARTIAL:
        return write_partial(mask->kind, value, &form, out);
    default:
        return 0;
    }
}
