/* A program for the tests, built with sanitizers. It reads texts from stdin, each after its length in
 * decimal and a newline. Of each body it writes the lines it makes, or a newline alone; its mapping is
 * the built-in one, that of an order with lines (`order`), or the same in an SNS notification (`sns`),
 * under the key of 32 times `k`. With `ids` the texts are MessageIds: it makes the key of each, and writes
 * whether it is that of a UUID. With `lines` they are parts of archives: it counts the usual lines. With `ledger`
 * they are lines of the ledger: it writes how long they are in the binary format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "ledger.h"
#include "lines.h"
#include "plan.h"
#include "sha256.h"

#define MEMBER(name, slot, kind) {name, sizeof name - 1, -1, slot, kind, 0, 0, -1, 0}
#define INSIDE(name, first, count) {name, sizeof name - 1, -1, -1, WANT_ANY, first, count, -1, 0}

static struct node login_nodes[] = {
    INSIDE("", 1, 7),
    MEMBER("user_id", 0, WANT_STRING),   MEMBER("device_type", 1, WANT_STRING),
    MEMBER("ip", 2, WANT_STRING),        MEMBER("device_id", 3, WANT_STRING),
    MEMBER("locale", 4, WANT_STRING),    MEMBER("app_version", 5, WANT_STRING),
    MEMBER("create_date", 6, WANT_STRING)};

static struct node order_nodes[] = {
    INSIDE("", 2, 6), /* a document, and an element of `lines` */
    INSIDE("", 8, 3),
    MEMBER("id", 0, WANT_STRING),
    INSIDE("user", 11, 2),
    MEMBER("at", 3, WANT_STRING),
    {"lines", 5, -1, -1, WANT_ANY, 0, 0, 0, 0},
    MEMBER("doc", 4, WANT_ANY),
    INSIDE("tags", 13, 1),
    MEMBER("sku", 0, WANT_STRING),
    MEMBER("n", 1, WANT_NUMBER),
    MEMBER("price", 2, WANT_NUMBER),
    MEMBER("id", 1, WANT_STRING),
    MEMBER("ip", 2, WANT_STRING),
    {"", 0, 1, 5, WANT_STRING, 0, 0, -1, 0}};

#define COLUMN(from, at, of_type, most)                                                     \
    {.source = from, .slot = at, .type = of_type, .length_max = most, .low = INT32_MIN,   \
     .high = INT32_MAX, .missing = MISSING_IS_CELL, .cell = "\\N", .cell_len = 2}

static struct column login_columns[] = {
    COLUMN(FROM_DOCUMENT, 0, TYPE_TEXT, 128),         COLUMN(FROM_DOCUMENT, 1, TYPE_TEXT, 32),
    COLUMN(FROM_DOCUMENT, 2, TYPE_TEXT, 256),         COLUMN(FROM_DOCUMENT, 3, TYPE_TEXT, 256),
    COLUMN(FROM_DOCUMENT, 4, TYPE_TEXT, 32),          COLUMN(FROM_DOCUMENT, 5, TYPE_VERSION, SIZE_MAX),
    COLUMN(FROM_DOCUMENT, 6, TYPE_DATE, SIZE_MAX)};

static struct column order_columns[] = {
    COLUMN(FROM_DOCUMENT, 0, TYPE_TEXT, SIZE_MAX),    COLUMN(FROM_DOCUMENT, 1, TYPE_TEXT, SIZE_MAX),
    COLUMN(FROM_DOCUMENT, 2, TYPE_TEXT, SIZE_MAX),    COLUMN(FROM_DOCUMENT, 3, TYPE_TIMESTAMPTZ, SIZE_MAX),
    COLUMN(FROM_DOCUMENT, 4, TYPE_JSONB, SIZE_MAX),   COLUMN(FROM_DOCUMENT, 5, TYPE_TEXT, SIZE_MAX),
    COLUMN(FROM_ELEMENT, 0, TYPE_TEXT, 40),           COLUMN(FROM_ELEMENT, 1, TYPE_INTEGER, SIZE_MAX),
    COLUMN(FROM_ELEMENT, 2, TYPE_NUMERIC, SIZE_MAX),  COLUMN(FROM_NOWHERE, 0, TYPE_INTEGER, SIZE_MAX)};

static const struct layer SNS = {5, {{"Type", 4, 1, USE_TYPE, -1}, {"Message", 7, 1, USE_TEXT, -1},
                                     {"MessageId", 9, 1, USE_NONE, -1}, {"TopicArn", 8, 1, USE_NONE, -1},
                                     {"Timestamp", 9, 1, USE_NONE, -1}}};

static void pseudonymize(struct column *column, enum kind kind)
{
    struct mask *mask = &column->mask;
    mask->operator = MASK_PSEUDONYM;
    mask->kind = kind;
    memcpy(mask->prefix, "v1_", mask->prefix_len = 3);
    hmac_key_set(&mask->key, (const uint8_t *)"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", 32);
}

static void set_login(struct plan *plan)
{
    plan->node = login_nodes;
    plan->slots = 7;
    plan->target[0] = (struct target){.group = -1, .when.exists = -1, .columns = 7, .column = login_columns};
    login_columns[0].required = 1;
    for (int i = 0; i < 7; i++)
        plan->check[plan->checks++] = (struct check){i, i == 0, 1};
    login_columns[6].missing = MISSING_IS_DAY;
    pseudonymize(&login_columns[2], KIND_IP);
    pseudonymize(&login_columns[3], KIND_TEXT);
}

static void set_order(struct plan *plan)
{
    plan->node = order_nodes;
    plan->slots = 6;
    plan->groups = 1;
    plan->group[0] = (struct group){1, 3};
    plan->target[0] = (struct target){.group = 0, .when.exists = -1, .columns = 10, .column = order_columns};
    order_columns[0].required = 1;
    order_columns[9].missing = MISSING_IS_RECORD_INDEX;
    pseudonymize(&order_columns[1], KIND_TEXT);
    pseudonymize(&order_columns[2], KIND_IP);
}

/* The lines of one body; `exact`: no byte is behind it that a sanitizer would not see. */
static void write_body(const struct plan *plan, const char *exact, size_t len, struct work *work)
{
    struct about about = {.sent_ms = 1795384388351, .id = "m", .id_len = 1};
    work->lines[0].len = 0;
    if (plan_write(plan, exact, len, &about, work) && work->lines[0].len > 0)
        fwrite(work->lines[0].at, 1, work->lines[0].len, stdout);
    else
        putchar('\n');
}

static void write_id(const char *exact, size_t len)
{
    char key[KEY_CHARS];
    puts(write_key(exact, len, 1, KEY_DATED, key) ? "key" : "none");
}

static void write_ledger(const char *exact, size_t len)
{
    static const struct ledger_end ENDS[] = {{"1\twritten\t\\N\n", "abc", 13, 3},
                                             {"1\tquarantined\t\\N\n", "defg", 17, 4}};
    char *to = malloc(len + LEDGER_BINARY_MORE);
    if (to != NULL)
        printf("%zu\n", ledger_write_binary(exact, len, ENDS, 2, 5, to));
    free(to);
}

int main(int argc, char **argv)
{
    static struct plan plan = {.targets = 1, .event = -1, .subject = -1};
    static struct work work;
    const char *what = argc > 1 ? argv[1] : "login";
    size_t len;
    sha256_choose();
    if (strcmp(what, "login") == 0)
        set_login(&plan);
    else
        set_order(&plan);
    if (strcmp(what, "sns") == 0)
        plan.layer[plan.layers++] = SNS;
    while (scanf("%zu", &len) == 1 && getchar() == '\n') {
        char *exact = malloc(len ? len : 1);
        if (exact == NULL || fread(exact, 1, len, stdin) != len)
            return 1;
        if (strcmp(what, "ids") == 0)
            write_id(exact, len);
        else if (strcmp(what, "ledger") == 0)
            write_ledger(exact, len);
        else if (strcmp(what, "lines") == 0)
            printf("%zu\n", count_usual_lines(exact, len));
        else
            write_body(&plan, exact, len, &work);
        free(exact);
    }
    work_forget(&work);
    return 0;
}
