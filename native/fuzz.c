/* For the tests, built with sanitizers. Reads texts from stdin, each after its length in decimal
 * and a newline. Without an argument each text is a body: prints its line, or an empty one, by the
 * built-in mapping and a key of 32 times `k`. With an argument each text is an HTTP reply: prints
 * where its body begins, 0 if the reply is not plain; and makes a ledger key of the text, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "key.h"
#include "line.h"

static const struct source SOURCES[] = {{"user_id", 7, 1}, {"device_type", 11, 0},
                                        {"ip", 2, 0},      {"device_id", 9, 0},
                                        {"locale", 6, 0},  {"app_version", 11, 0},
                                        {"create_date", 11, 0}};

int main(int argc, char **argv)
{
    (void)argv;
    static struct plan plan;
    struct text line = {NULL, 0, 0, 0};
    size_t len;
    sha256_choose();
    plan.sources = plan.columns = sizeof SOURCES / sizeof *SOURCES;
    memcpy(plan.source, SOURCES, sizeof SOURCES);
    static const enum operation OPS[] = {OP_TEXT, OP_TEXT,    OP_TOKEN_IP, OP_TOKEN_TEXT,
                                         OP_TEXT, OP_VERSION, OP_DATE};
    static const size_t LIMITS[] = {128, 32, 256, 256, 32, SIZE_MAX, SIZE_MAX};
    for (size_t i = 0; i < plan.columns; i++) {
        struct column *column = &plan.column[i];
        column->source = (int)i;
        column->op = OPS[i];
        column->length_max = LIMITS[i];
        column->nullable = 1;
        column->dated = OPS[i] == OP_DATE;
        memcpy(column->prefix, "v1_", column->prefix_len = 3);
        hmac_key_set(&column->key, (const uint8_t *)"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", 32);
    }
    while (scanf("%zu", &len) == 1 && getchar() == '\n') {
        char *body = malloc(len + 1); /* exact, so that a sanitizer sees a read past the end */
        char *exact = realloc(body, len ? len : 1);
        if (exact == NULL || fread(exact, 1, len, stdin) != len)
            return 1;
        line.len = 0;
        char key[KEY_CHARS];
        if (argc > 1)
            printf("%zu%s\n", plain_body(exact, len), write_key(exact, len, 1, key) ? " key" : "");
        else if (write_line(&plan, exact, len, 1795384388351, &line))
            fwrite(line.at, 1, line.len, stdout);
        else
            putchar('\n');
        free(exact);
    }
    free(line.at);
    return 0;
}
