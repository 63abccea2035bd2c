/* Generated login events (see logins.h). */
#include "logins.h"

static const char *const LOCALES[] = {"RU", "US", "DE", "FR", "BR", "IN", "JP", "GB", "ES", "TR"};
static const char *const DEVICES[] = {"android", "iOS", "web", "android"};

enum { NOT_TEXT, TRUNCATED, ARRAY, NO_USER, WRONG_TYPE, BAD_IP, BAD_VERSION, MALFORMED_KINDS };

static void write_user(uint64_t person, Buffer *out) {
    uint64_t halves[2] = {random_mix(person + 1), random_mix(person + 2)};
    uint8_t id[16];
    memcpy(id, halves, 16);
    id[6] = (uint8_t)((id[6] & 0x0F) | 0x40);
    id[8] = (uint8_t)((id[8] & 0x3F) | 0x80);
    buffer_uuid(out, id);
}

/* One to three dotted numbers. */
static void write_version(Random *r, Buffer *out) {
    uint32_t parts = 1 + random_below(r, 3);
    buffer_number(out, random_below(r, 6));
    for (uint32_t i = 1; i < parts; i++) {
        buffer_text(out, ".");
        buffer_number(out, random_below(r, 20));
    }
}

/* One of three addresses of a person, most often the first. */
static void write_ip(uint64_t person, Random *r, Buffer *out) {
    uint32_t place = random_below(r, 8);
    uint64_t h = random_mix(person + 16 + (place < 2 ? place + 1 : 0));
    buffer_number(out, 1 + h % 223);
    for (int i = 1; i < 4; i++) {
        buffer_text(out, ".");
        buffer_number(out, h >> 16 * i & 255);
    }
}

static void write_digits(uint64_t value, int digits, Buffer *out) {
    char text[8];
    for (int i = digits; i > 0; i--, value /= 10) text[i - 1] = (char)('0' + value % 10);
    buffer_add(out, text, (size_t)digits);
}

static void write_device_id(uint64_t device, Buffer *out) {
    uint64_t h = random_mix(device);
    write_digits(h % 1000, 3, out);
    buffer_text(out, "-");
    write_digits(h >> 16 & 63, 2, out);
    buffer_text(out, "-");
    write_digits((h >> 32) % 10000, 4, out);
}

static void write_text(Buffer *out, const char *text) { buffer_add(out, text, strlen(text)); }

static void write_event(const Population *p, Random *r, int fault, Buffer *out) {
    uint64_t person = random_mix(p->seed * 0x9E3779B97F4A7C15u + random_below(r, p->people)) & ~255ull;
    uint64_t device = person + 32 + random_below(r, 2);
    write_text(out, "{");
    if (fault == WRONG_TYPE) {
        write_text(out, "\"user_id\": 17, ");
    } else if (fault != NO_USER) {
        write_text(out, "\"user_id\": \"");
        write_user(person, out);
        write_text(out, "\", ");
    }
    write_text(out, "\"app_version\": \"");
    write_version(r, out);
    if (fault == BAD_VERSION) write_text(out, "x");
    write_text(out, "\", \"device_type\": \"");
    write_text(out, DEVICES[random_mix(device) >> 8 & 3]);
    write_text(out, "\", \"ip\": \"");
    if (fault == BAD_IP) write_text(out, "300.");
    write_ip(person, r, out);
    write_text(out, "\", \"locale\": ");
    if (random_below(r, 2)) {
        write_text(out, "null");
    } else {
        write_text(out, "\"");
        write_text(out, LOCALES[random_mix(person) % 10]);
        write_text(out, "\"");
    }
    write_text(out, ", \"device_id\": \"");
    write_device_id(device, out);
    write_text(out, "\"");
    if (p->pad_bytes) {
        write_text(out, ", \"padding\": \"");
        memset(buffer_room(out, p->pad_bytes), 'x', p->pad_bytes);
        out->len += p->pad_bytes;
        write_text(out, "\"");
    }
    if (fault != TRUNCATED) write_text(out, "}");
}

static void write_in_template(const Population *p, const Buffer *login, Buffer *out) {
    for (size_t i = 0; i < p->template_len; i++) {
        switch (p->template[i]) {
        case '$': buffer_add(out, login->data, login->len); break;
        case '%': buffer_escaped(out, login->data, login->len); break;
        case '@': buffer_add(out, login->data + 1, login->len - 1); break;
        default: buffer_add(out, &p->template[i], 1);
        }
    }
}

bool login_write(const Population *p, Random *r, Buffer *out) {
    static Buffer login;
    if (!random_chance(r, p->malformed_share)) {
        login.len = 0;
        write_event(p, r, -1, p->template ? &login : out);
        if (p->template) write_in_template(p, &login, out);
        return false;
    }
    uint32_t fault = random_below(r, MALFORMED_KINDS);
    if (fault == NOT_TEXT) {
        write_text(out, "login of somebody, not JSON");
    } else if (fault == ARRAY) {
        write_text(out, "[\"user_id\", \"ip\", \"device_id\"]");
    } else {
        write_event(p, r, (int)fault, out);
    }
    return true;
}
