/* See judge.h. */
#include "judge.h"

#include <string.h>

#include "document.h"

enum {
    SHORT = 2 * DEPTH_MAX + 2, /* as in mapping/json_slices.py */
    CELL_BYTES = 320 /* of any cell, besides twice the body's bytes: a hash, a moment */
};

static void say(struct work *work, enum verdict_is is, int place)
{
    work->verdict = (struct verdict){.is = (unsigned char)is, .place = place};
}

/* Whether the text may be nested too deeply, or begins with a mark that readers take off. */
static int is_odd(const char *body, size_t len)
{
    size_t open = 0;
    if (len >= 3 && memcmp(body, "\xef\xbb\xbf", 3) == 0)
        return 1;
    for (size_t i = 0; len >= SHORT && i < len; i++)
        open += body[i] == '{' || body[i] == '[';
    return open > DEPTH_MAX;
}

/* Whether a body is an object: else the verdict says so, if it is certain. */
static int judge_json(const char *body, size_t len, struct work *work)
{
    struct reader in = {body, body + len, &work->arena, 0};
    struct value value;
    work->arena.len = 0;
    if (is_odd(body, len))
        return 0;
    if (!json_value(&in, &value, 0) || !json_ended(&in)) {
        if (!in.unsure)
            say(work, VERDICT_NOT_JSON, 0);
        return 0;
    }
    if (value.is == CONTAINER && *value.at == '{')
        return 1;
    say(work, VERDICT_NOT_AN_OBJECT, 0);
    return 0;
}

/* Whether all sources of the document have what they must: else the verdict names the first. */
static int judge_sources(const struct plan *plan, struct work *work)
{
    for (int i = 0; i < plan->checks; i++) {
        const struct check *check = &plan->check[i];
        const struct value *value = &work->document[check->slot];
        if (value->is == WRONG)
            say(work, VERDICT_WRONG_TYPE, i);
        else if (check->required && (value->is == ABSENT || value->is == NUL))
            say(work, VERDICT_MISSING, i);
        else if (check->required && check->decoded && value->is == STRING && value->len == 0)
            say(work, VERDICT_EMPTY, i);
        else
            continue;
        return 0;
    }
    return 1;
}

/* Whether the message's lines may be so long that this is its fault. */
static int may_be_too_long(const struct target *target, size_t len, size_t text_max)
{
    size_t most = 0;
    for (int i = 0; i < target->columns; i++) {
        const struct conversion *conversion = target->column[i].conversion;
        if (conversion != NULL && conversion->pairs > 0)
            return 1;
        most += 2 * len + CELL_BYTES + target->column[i].cell_len;
    }
    return text_max > 0 && most > text_max;
}

/* Whether Python is likely to take a value: then it had better make the whole unit at once. */
static int may_be_good(const struct column *column, const struct value *value)
{
    enum kind kind = column->mask.kind;
    int address = column->type == TYPE_INET || column->mask.operator == MASK_TRUNCATE_IP ||
                  kind == KIND_IP || kind == KIND_IP_OR_TEXT;
    if (address && memchr(value->at, ':', value->len) != NULL)
        return 1; /* of version 6 */
    return value->is == STRING && !value->ascii && column->mask.operator != MASK_NONE;
}

/* Name the column that no cell could be made for, with its value: Python then makes it. */
static void suspect(const struct plan *plan, size_t len, struct work *work)
{
    const struct target *target = &plan->target[work->stuck_target];
    const struct column *column = &target->column[work->stuck_column];
    const struct value *value = work->stuck;
    size_t from = work->suspects.len;
    int present = value != NULL && value->is != ABSENT && value->is != NUL;
    if (column->source != FROM_DOCUMENT || column->type == TYPE_JSONB || plan->drops > 0 ||
        (column->conversion != NULL && column->conversion->others > 0) ||
        (present && (value->is == CONTAINER || may_be_good(column, value))) ||
        may_be_too_long(target, len, work->text_max))
        return;
    char *to = present ? text_room(&work->suspects, value->len + 1) : NULL; /* even of an empty one */
    if (present && to == NULL)
        return;
    if (present) {
        memcpy(to, value->at, value->len);
        work->suspects.len += value->len;
    }
    work->verdict = (struct verdict){.is = VERDICT_OF_COLUMN,
                                     .target = (unsigned char)work->stuck_target,
                                     .present = (unsigned char)present,
                                     .place = work->stuck_column,
                                     .from = from,
                                     .len = present ? value->len : 0};
}

void plan_judge(const struct plan *plan, const char *body, size_t len, struct work *work)
{
    struct reader in = {body, body + len, &work->arena, 0};
    if (plan->records != RECORDS_ONE || plan->layers > 0 || plan->groups > 0)
        return;
    /* Read anew, even if a line was begun: what is behind the document was not looked at. */
    if (!judge_json(body, len, work) || plan->checks < 0)
        return;
    work->arena.len = 0;
    if (document_judge(plan, &in, work) && judge_sources(plan, work) && work->stuck_column >= 0)
        suspect(plan, len, work);
}
