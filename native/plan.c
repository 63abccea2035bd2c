/* See plan.h. A document is read whole before its first line is written: values may come later in
 * it than the array that it is exploded by. */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "document.h"
#include "envelope.h"
#include "judge.h"

struct run {
    const struct plan *plan;
    const struct about *about;
    struct work *work;
    struct reader in;
    size_t before[TARGETS_MAX]; /* where the message's lines begin */
};

/* A default that comes from the message, as a text; 0: there is none. */
static int make_default(const struct run *run, const struct column *column, size_t index, char *room,
                        size_t size, struct value *value)
{
    const struct about *about = run->about;
    int len = 0;
    switch (column->missing) {
    case MISSING_IS_SENT_DAY:
        len = format_moment(about->sent_ms, room) ? 10 : 0;
        break;
    case MISSING_IS_SENT_TIME:
        len = format_moment(about->sent_ms, room) ? MOMENT_CHARS : 0;
        break;
    case MISSING_IS_SENT_MS:
        len = about->sent_ms < 0 ? 0 : snprintf(room, size, "%lld", (long long)about->sent_ms);
        break;
    case MISSING_IS_RECORD_INDEX:
        len = snprintf(room, size, "%zu", index);
        break;
    default:
        break;
    }
    *value = (struct value){.at = room, .len = (size_t)len, .is = STRING, .ascii = 1};
    if (column->missing == MISSING_IS_MESSAGE_ID) {
        if (about->id == NULL || memchr(about->id, '\0', about->id_len) != NULL)
            return 0;
        value->at = about->id;
        value->len = about->id_len;
        value->escaped = 1; /* it may have anything in it */
        return 1;
    }
    return len > 0;
}

static int convert(const struct column *column, const struct value *value, struct text *out)
{
    char lower[UUID_CHARS];
    switch (column->type) {
    case TYPE_TEXT:
        return write_escaped(value, out);
    case TYPE_INTEGER:
        return write_integer(value, column->low, column->high, out);
    case TYPE_NUMERIC:
        return write_numeric(value, out);
    case TYPE_DOUBLE:
        return write_double(value, out);
    case TYPE_BOOLEAN:
        return text_append(out, value->at, value->len);
    case TYPE_DATE:
        return write_date(value, out);
    case TYPE_TIMESTAMPTZ:
        return write_timestamp(value, out);
    case TYPE_UUID:
        return read_uuid(value, lower) && text_append(out, lower, sizeof lower);
    case TYPE_INET:
        return write_inet(value, out);
    case TYPE_JSONB:
        return write_jsonb(value, out);
    case TYPE_VERSION:
        return write_version(value, column->low, column->high, out);
    case TYPE_MAJOR:
        return write_major(value, column->low, column->high, out);
    default:
        return 0;
    }
}

/* What a mask takes: the value in the form that the field's type gives it. */
static int convert_to_mask(const struct column *column, const struct value *value, struct text *out)
{
    char lower[UUID_CHARS];
    struct value form = *value;
    size_t before = out->len;
    if (column->type == TYPE_UUID) {
        if (!read_uuid(value, lower))
            return 0;
        form.at = lower;
    } else if (column->type == TYPE_INTEGER) { /* its text is the number's own */
        if (!convert(column, value, out))
            return 0;
        out->len = before;
        form.ascii = 1;
    }
    return write_masked(&column->mask, &form, out);
}

/* A value in the form that its field says. */
static int convert_form(const struct column *column, enum form form, const struct value *value,
                        struct text *out)
{
    switch (form) {
    case FORM_OF_TYPE:
        return convert(column, value, out);
    case FORM_EPOCH_S:
        return write_epoch(value, 0, column->type == TYPE_DATE, out);
    case FORM_EPOCH_MS:
        return write_epoch(value, 3, column->type == TYPE_DATE, out);
    case FORM_EPOCH_US:
        return write_epoch(value, 6, column->type == TYPE_DATE, out);
    default:
        return 0;
    }
}

/* Whether a value whose kind was left open has one that its type takes. */
static int fits_type(const struct column *column, const struct value *value)
{
    switch (column->type) {
    case TYPE_INTEGER:
    case TYPE_NUMERIC:
    case TYPE_DOUBLE:
        return value->is == NUMBER || is_json_number(value->at, value->len);
    case TYPE_BOOLEAN:
        return (value->len == 4 && memcmp(value->at, "true", 4) == 0) ||
               (value->len == 5 && memcmp(value->at, "false", 5) == 0);
    default:
        return 1;
    }
}

static int write_value(const struct column *column, enum form form, const struct value *value,
                       struct text *out)
{
    size_t before = out->len;
    if (column->mask.operator == MASK_NONE ? !convert_form(column, form, value, out)
                                           : !convert_to_mask(column, value, out))
        return 0;
    if (column->length_max == SIZE_MAX || column->mask.operator == MASK_NULLIFY)
        return 1;
    int kept = column->mask.operator == MASK_NONE || column->mask.operator == MASK_KEEP;
    const char *at = out->at + before;
    size_t len = out->len - before;
    if (kept && column->type == TYPE_TEXT) { /* without the escapes */
        at = value->at;
        len = value->len;
    } else if (kept && column->type == TYPE_JSONB) {
        at = value->raw;
        len = value->raw_len;
    }
    return len <= column->length_max || count_characters(at, len) <= column->length_max;
}

static int is_present(const struct value *value)
{
    return value != NULL && value->is != ABSENT && value->is != NUL;
}

/* The cell of a value that is edited and converted; -1: it is missing after all. */
static int write_converted(const struct column *column, const struct value *given, struct text *out)
{
    const struct conversion *conversion = column->conversion;
    char room[EDITED_MAX];
    struct value value = *given;
    struct pair cell;
    switch (edit_value(conversion, &value, room, &cell)) {
    case EDITED_IS_VALUE:
        break;
    case EDITED_IS_MISSING:
        return -1;
    case EDITED_IS_CELL:
        return text_append(out, cell.cell, cell.cell_len);
    default:
        return 0;
    }
    if ((column->required && value.len == 0) || !fits_type(column, &value))
        return 0;
    return write_value(column, conversion->form, &value, out);
}

/* Whether a value is one of those that a route wants: 1, 0, or -1 where it is left to Python. */
static int is_wanted(const struct condition *when, const struct value *value)
{
    if (value->is == NUMBER && !json_is_whole(value->at, value->len))
        return -1; /* 1.0 is 1 */
    for (int i = 0; i < when->wanted; i++) {
        const struct wanted *wanted = &when->wanteds[i];
        if (wanted->is != value->is)
            continue;
        if (value->is == TRUE || value->is == FALSE ||
            (wanted->len == value->len && memcmp(wanted->at, value->at, value->len) == 0))
            return 1;
    }
    return 0;
}

/* Whether a condition holds for the document: 1, 0, or -1 where it is left to Python. */
static int holds(const struct run *run, const struct condition *when)
{
    const struct value *value = &run->work->document[when->slot];
    int exists = value->is != ABSENT && value->is != NUL;
    if (when->exists >= 0 && when->exists != exists)
        return 0;
    if (when->wanted == 0)
        return 1;
    return exists ? is_wanted(when, value) : 0;
}

/* Whether the document's records delete rows. What a condition asks of an object or an array is
 * left to Python. */
static int write_condition(const struct run *run, const struct condition *when, struct text *out)
{
    if (run->work->document[when->slot].is == CONTAINER)
        return 0;
    int found = holds(run, when);
    return found >= 0 && (found ? text_append(out, "true", 4) : text_append(out, "false", 5));
}

static int write_cell(struct run *run, const struct column *column, const struct value *given,
                      size_t index, struct text *out)
{
    char room[32];
    struct value made;
    if (is_present(given)) {
        if (column->required && given->is == STRING && given->len == 0)
            return 0;
        if (column->conversion == NULL)
            return write_value(column, FORM_OF_TYPE, given, out);
        int wrote = write_converted(column, given, out);
        if (wrote >= 0)
            return wrote;
    }
    if (column->required || column->missing == MISSING_IS_PYTHONS)
        return 0;
    if (column->missing == MISSING_IS_CELL)
        return text_append(out, column->cell, column->cell_len);
    if (column->missing == MISSING_IS_DAY)
        return write_day(run->about->sent_ms, out);
    return make_default(run, column, index, room, sizeof room, &made) &&
           write_value(column, FORM_OF_TYPE, &made, out);
}

/* The value of the first source that has one. */
static const struct value *find_value(const struct column *column,
                                      const struct value *const sources[SOURCE_COUNT])
{
    const struct value *source = sources[column->source];
    const struct value *value = source ? &source[column->slot] : NULL;
    const struct conversion *conversion = column->conversion;
    for (int i = 0; conversion != NULL && i < conversion->others && !is_present(value); i++)
        value = &sources[conversion->other[i].source][conversion->other[i].slot];
    return value;
}

static int keep_text(struct text *to, const char *at, size_t len)
{
    uint32_t size = (uint32_t)len;
    return text_append(to, (const char *)&size, sizeof size) && text_append(to, at, len);
}

/* Keep whose record it is, for the vault: the id after its length. 0 where Python must make the row,
 * as of a person without an id, or with one that has other normal forms. */
static int keep_subject(struct run *run)
{
    const struct value *id = &run->work->document[run->plan->subject];
    return id->is == STRING && id->ascii && id->len > 0 && id->len <= UINT32_MAX &&
           keep_text(&run->work->originals, id->at, id->len);
}

/* Keep what a cell stands for: cell and cleartext, each after its length; both empty where there is
 * no cleartext, or no token. 0 where Python must make the row. */
static int keep_original(struct run *run, const struct value *value, const char *cell, size_t len)
{
    struct text *to = &run->work->originals;
    if (!is_present(value) || (len == 2 && memcmp(cell, "\\N", 2) == 0))
        return keep_text(to, "", 0) && keep_text(to, "", 0);
    if (value->is != STRING || len == 0 || value->len > UINT32_MAX || memchr(cell, '\\', len) != NULL)
        return 0;
    return keep_text(to, cell, len) && keep_text(to, value->at, value->len);
}

static int write_line(struct run *run, int number, const struct value *element, size_t index)
{
    const struct target *target = &run->plan->target[number];
    struct text *out = &run->work->lines[number];
    size_t text_max = run->work->text_max;
    const struct value *sources[SOURCE_COUNT] = {NULL, run->work->document, element,
                                                 run->work->layer, NULL};
    if (run->plan->subject >= 0 && !keep_subject(run))
        return 0;
    for (int i = 0; i < target->columns; i++) {
        const struct column *column = &target->column[i];
        const struct value *value = find_value(column, sources);
        const char *after = i + 1 < target->columns ? "\t" : "\n";
        size_t before = out->len;
        if (column->source == FROM_CONDITION ? !write_condition(run, &target->deletes, out)
                                             : !write_cell(run, column, value, index, out)) {
            run->work->stuck = value;
            run->work->stuck_target = number;
            run->work->stuck_column = i;
            return 0;
        }
        if ((column->recover && !keep_original(run, value, out->at + before, out->len - before)) ||
            !text_append(out, after, 1))
            return 0;
    }
    run->work->count[number]++;
    return text_max == 0 || out->len - run->before[number] <= text_max;
}

/* Whether a filter takes the document: 1, 0, or -1 where it is left to Python. */
static int is_filtered(const struct run *run)
{
    int found = 0;
    for (int i = 0; found == 0 && i < run->plan->filters; i++)
        found = holds(run, &run->plan->filter[i]);
    return found;
}

/* The lines of the records that a target has of the document; -1 where it is left to Python. */
static int write_records(struct run *run, int number, size_t first)
{
    int group = run->plan->target[number].group;
    if (group < 0)
        return write_line(run, number, NULL, first) ? 1 : -1;
    const struct elements *elements = &run->work->elements[group];
    size_t row = run->plan->group[group].slots ? (size_t)run->plan->group[group].slots : 1;
    if (!elements->present || elements->count > RECORDS_MAX)
        return -1;
    for (size_t i = 0; i < elements->count; i++)
        if (!write_line(run, number, &elements->at[i * row], first + i))
            return -1;
    return (int)elements->count;
}

/* The lines of all of the document's records; `index`: the first one's, then the next one's. */
static int write_document(struct run *run, size_t *index)
{
    int most = 1, taken = 0;
    int filtered = is_filtered(run);
    if (filtered != 0) {
        run->work->dropped++;
        *index += 1;
        return filtered > 0 && *index <= RECORDS_MAX;
    }
    for (int i = 0; i < run->plan->targets; i++) {
        const struct target *target = &run->plan->target[i];
        int wanted = target->mode == CONDITIONAL ? holds(run, &target->when) : target->mode == ALWAYS;
        if (wanted < 0)
            return 0;
        if (wanted == 0)
            continue;
        taken = 1;
        int records = write_records(run, i, *index);
        if (records < 0)
            return 0;
        most = records > most ? records : most;
    }
    for (int i = 0; !taken && i < run->plan->targets; i++) {
        if (run->plan->target[i].mode != OTHERWISE)
            continue;
        int records = write_records(run, i, *index);
        if (records < 0)
            return 0;
        most = records > most ? records : most;
    }
    if (!taken && !run->plan->otherwise) {
        if (!run->plan->drop_unmatched)
            return 0;
        run->work->dropped++;
    }
    *index += (size_t)most;
    return *index <= RECORDS_MAX;
}

static int read_document(struct run *run, size_t *index, int depth)
{
    return document_read(run->plan, &run->in, run->work, depth) && write_document(run, index);
}

static int read_array(struct run *run, size_t *index)
{
    if (!json_take(&run->in, '['))
        return 0;
    if (json_take(&run->in, ']'))
        return 1;
    do
        if (!read_document(run, index, 1))
            return 0;
    while (json_take(&run->in, ','));
    return json_take(&run->in, ']');
}

static int read_lines(struct run *run, size_t *index)
{
    const char *end = run->in.end;
    while (run->in.at < end) {
        const char *line = memchr(run->in.at, '\n', (size_t)(end - run->in.at));
        run->in.end = line ? line : end;
        if (!json_ended(&run->in) && (!read_document(run, index, 0) || !json_ended(&run->in)))
            return 0;
        run->in.at = line ? line + 1 : end;
    }
    return 1;
}

static int read_records(struct run *run)
{
    size_t index = 0;
    enum records records = run->plan->records;
    if (records == RECORDS_LINES)
        return read_lines(run, &index);
    json_space(&run->in);
    if (records == RECORDS_AUTO && run->in.at < run->in.end)
        records = *run->in.at == '[' ? RECORDS_ARRAY : RECORDS_ONE;
    int done = records == RECORDS_ARRAY ? read_array(run, &index) : read_document(run, &index, 0);
    return done && json_ended(&run->in);
}

int plan_write(const struct plan *plan, const char *body, size_t len, const struct about *about,
               struct work *work)
{
    struct run run = {plan, about, work, {body, body + len, &work->arena, 0}, {0}};
    size_t count[TARGETS_MAX], dropped = work->dropped, originals = work->originals.len;
    for (int i = 0; i < plan->targets; i++) {
        run.before[i] = work->lines[i].len;
        count[i] = work->count[i];
    }
    int said = plan->layer_slots - plan->attributes;
    memset(work->layer, 0, (size_t)said * sizeof *work->layer);
    for (int i = 0; i < plan->attributes; i++)
        work->layer[said + i] = about->attributes[i];
    work->verdict.is = VERDICT_NONE;
    work->stuck_column = -1;
    work->unknowns.unit = work->unknowns.seen_count;
    work->arena.len = 0; /* every decoded byte has its place: the envelopes' and the document's */
    if (text_room(&work->arena, (len + 8) * ((size_t)plan->layers + 1)) != NULL &&
        open_layers(plan, &run.in, work->layer) && read_records(&run))
        return 1;
    for (int i = 0; i < plan->targets; i++) {
        work->lines[i].len = run.before[i];
        work->count[i] = count[i];
        work->failed |= work->lines[i].failed;
    }
    if (!work->arena.failed)
        plan_judge(plan, body, len, work);
    work->failed |= work->arena.failed || work->originals.failed || work->suspects.failed;
    work->dropped = dropped;
    work->originals.len = originals;
    work->unknowns.seen_count = work->unknowns.unit;
    return 0;
}

void work_forget(struct work *work)
{
    for (int i = 0; i < TARGETS_MAX; i++)
        text_forget(&work->lines[i]);
    for (int i = 0; i < GROUPS_MAX; i++)
        free(work->elements[i].at); /* pointers and lengths, no values */
    text_forget(&work->arena);
    text_forget(&work->originals);
    text_forget(&work->suspects);
    unknown_forget(&work->unknowns);
    memset(work, 0, sizeof *work);
}
