/* Arguments of SQS calls (see arguments.h). */
#include "arguments.h"

#include <string.h>

Json request_json;

const char *arg_text(const JsonNode *node, Buffer *scratch, size_t *len) {
    if (!node || node->type != JSON_STRING) return NULL;
    scratch->len = 0;
    if (json_unescape(node->text, node->len, scratch) != TEXT_OK) return NULL;
    buffer_room(scratch, 1)[0] = 0;
    *len = scratch->len;
    return scratch->data;
}

bool arg_number(const JsonNode *args, const char *name, int64_t least, int64_t most, int64_t *value, Problem *p) {
    const JsonNode *node = arg(args, name);
    if (!node) return true;
    int64_t n;
    if (!json_integer(node, &n)) return fail(p, &NOT_JSON, "Invalid type for parameter %s.", name);
    if (n < least || n > most) {
        return fail(p, &BAD_PARAMETER, "Value %lld for parameter %s is invalid. Reason: Must be between %lld and %lld, if provided.",
                    (long long)n, name, (long long)least, (long long)most);
    }
    *value = n;
    return true;
}

Queue *arg_queue(const JsonNode *args, Problem *p) {
    const JsonNode *url = arg(args, "QueueUrl");
    if (!url || url->type != JSON_STRING || !url->len) return fail_missing(p, "QueueUrl"), NULL;
    const char *name = memrchr(url->text, '/', url->len);
    name = name ? name + 1 : url->text;
    Queue *q = queue_find(name, (size_t)(url->text + url->len - name));
    if (!q) fail(p, &QUEUE_MISSING, "The specified queue does not exist.");
    return q;
}

static bool is_entry_id(const JsonNode *id) {
    if (!id || id->type != JSON_STRING || id->len < 1 || id->len > 80) return false;
    for (uint32_t i = 0; i < id->len; i++) {
        char c = id->text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_')) return false;
    }
    return true;
}

int arg_entries(const JsonNode *args, const JsonNode *entries[BATCH_MAX], const JsonNode *ids[BATCH_MAX], Problem *p) {
    const JsonNode *list = arg(args, "Entries");
    int n = 0;
    if (!list || list->type != JSON_ARRAY || !arg_first(list)) return fail(p, &EMPTY_BATCH, "There should be at least one entry in the request.");
    for (const JsonNode *e = arg_first(list); e; e = arg_next(e), n++) {
        if (n < BATCH_MAX) entries[n] = e, ids[n] = arg(e, "Id");
    }
    if (n > BATCH_MAX) return fail(p, &TOO_MANY_ENTRIES, "Maximum number of entries per request are %d. You have sent %d.", BATCH_MAX, n);
    for (int i = 0; i < n; i++) {
        if (!is_entry_id(ids[i])) {
            return fail(p, &BAD_ENTRY_ID, "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.");
        }
        for (int k = 0; k < i; k++) {
            if (ids[k]->len == ids[i]->len && memcmp(ids[k]->text, ids[i]->text, ids[i]->len) == 0) {
                return fail(p, &IDS_NOT_DISTINCT, "Id %.*s repeated.", (int)ids[i]->len, ids[i]->text);
            }
        }
    }
    return n;
}
