"""Expression rules: what the expressions of a mapping may be and read. Checked at the start.

Each refusal says what would go wrong and what to set instead. No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqs2pg.errors import SettingsError
from sqs2pg.mask.registry import properties
from sqs2pg.settings import source_paths
from sqs2pg.settings.expressions import Names, Syntax, overlap, parse
from sqs2pg.settings.fields import DROP, Field
from sqs2pg.settings.routes import Filter, Target, conditions
from sqs2pg.settings.sections import Settings
from sqs2pg.settings.when import When


def check_expressions(settings: Settings) -> None:
    """Raise SettingsError for the first expression that cannot be right.

    Codes: `bad_expression`, `expression_and_source`, `expression_domain`,
    `expression_reads_masked`, `kept_beside_mask`, `dropped_and_mapped`, `when_condition`,
    `bad_path`.
    """
    for number, route in enumerate(settings.route):
        if route.when:
            _check_when(route.when, f"`when` of route[{number}]")
            _check_whole(route.when, f"`when` of route[{number}]")
    for target in settings.targets:
        if target.write.delete_when:
            where = f"`delete_when` of {target.route or 'sink'}"
            _check_when(target.write.delete_when, where)
    for field in settings.fields:
        if field.expression:
            _check_field(field)
    for field in settings.fields:
        if field.expression:
            _check_dropped(field, settings.dropped)
            _check_reads(field, settings)
        if field.mask == "keep":
            _check_kept_sources(field, settings)


def when_syntax(when: When, route: str) -> Syntax | None:
    """Return the parsed expression of a `when`; None without one. `route`: its place."""
    return parse(when.expression, f"`when` of {route}") if when.expression else None


def field_syntax(field: Field) -> Syntax | None:
    """Return the parsed expression of a field; None without one."""
    return parse(field.expression, f"field {field.name!r}") if field.expression else None


def _check_when(when: When, where: str) -> None:
    others = when.field or when.any_of or when.equals is not None or when.exists is not None
    if when.expression and others:
        raise SettingsError(
            f"{where} has an expression and other conditions",
            code="when_condition",
            hint="write all of them in the expression: type == 'login' && size > `10`",
        )
    if when.expression:
        parse(when.expression, where)
        return
    if not when.field:
        raise SettingsError(
            f"{where} has neither field nor expression",
            code="when_condition",
            hint="name the field that decides, or write an expression",
        )
    if when.equals is None and not when.any_of and when.exists is None:
        raise SettingsError(
            f"{where} has no condition",
            code="when_condition",
            hint="add equals, any_of or exists",
        )


def _check_whole(when: When, where: str) -> None:
    if when.field and source_paths.EACH in source_paths.parse(when.field):
        raise SettingsError(
            f"{where} names {when.field!r}, a part of each element of an array",
            code="bad_path",
            hint="a route takes or leaves a whole document, before `explode`: name one element, "
            "such as [0], or write an expression, such as lines[?kind == 'x']",
        )


def _check_field(field: Field) -> None:
    where = f"field {field.name!r}"
    if field.sources:
        raise SettingsError(
            f"field {field.column!r} has a source and an expression",
            code="expression_and_source",
            hint="an expression takes the place of the source: remove one of the two",
        )
    parse(field.expression, where)
    if properties(field.mask).keyed and not field.domain:
        raise SettingsError(
            f"{where}: mask = {field.mask!r} of an expression needs a `domain`",
            code="expression_domain",
            hint="the masks of one domain join, and a change of the expression must not change "
            'them by the way: name what the value is, such as domain = "person"',
        )


def _check_reads(field: Field, settings: Settings) -> None:
    syntax = field_syntax(field)
    if syntax is None or field.mask != "keep":
        return
    for other, masked in _masked(settings):
        if syntax.tells_of(masked):
            read = next((path for path in sorted(syntax.reads) if overlap(path, masked)), masked)
            raise SettingsError(
                f"field {field.name!r} is kept, and its expression reads {_shown(read)}, while "
                f"field {other.name!r} masks {_shown(masked)}",
                code="expression_reads_masked",
                hint="readers of the table would see the value, or part of it. An expression "
                "reads all that is below @, *, [*], [] and the arguments of a function: name "
                "single values, or mask this field, too",
            )


def _check_kept_sources(field: Field, settings: Settings) -> None:
    for source in field.body_sources:
        kept = names_of(source)
        for other, masked in _masked(settings):
            if other.expression and other.mask != "partial" and kept == masked[: len(kept)]:
                raise SettingsError(
                    f"field {source!r} is kept, and field {other.name!r} masks {_shown(masked)} by "
                    "an expression",
                    code="kept_beside_mask",
                    hint="readers of the table see both; mask it in each, or drop one",
                )


def _check_dropped(field: Field, dropped: tuple[str, ...]) -> None:
    syntax = field_syntax(field)
    for source in dropped:
        outer = names_of(source)
        if syntax is None or not syntax.tells_of(outer):
            continue
        # A mask of a whole in which it is shows nothing of it.
        is_named = any(outer == path[: len(outer)] for path in syntax.reads)
        if is_named or field.mask == "keep":
            raise SettingsError(
                f"field {source!r} is dropped, and the expression of {field.name!r} reads it",
                code="dropped_and_mapped",
                hint="remove one of the two, or name single values in the expression",
            )


def _masked(settings: Settings) -> Iterator[tuple[Field, Names]]:
    """Yield each masked field with a path whose value it masks."""
    for field in settings.fields:
        if field.mask in ("keep", DROP):
            continue
        for source in field.body_sources:
            yield field, names_of(source)
        if syntax := field_syntax(field):
            for path in sorted(syntax.gives):
                yield field, path


def names_of(source: str) -> Names:
    """Return the names on the path of a source, without the arrays that it goes through."""
    return tuple(step for step in source_paths.parse(source) if isinstance(step, str))


def _shown(path: Names) -> str:
    return repr(".".join(path)) if path else "the whole record"


def syntaxes(targets: Iterable[Target], filters: Iterable[Filter] = ()) -> list[Syntax]:
    """Return the parsed expressions of a mapping: those of fields, of routes and of filters."""
    targets = list(targets)
    found = [when_syntax(when, route) for when, route in conditions(targets, filters)]
    found += [field_syntax(field) for target in targets for field in target.fields]
    return [syntax for syntax in found if syntax is not None]


def first_names(settings: Settings) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each source and expression with the members of the document that it starts at."""
    for field in settings.fields:
        for source in field.sources:
            yield f"field {source!r}", frozenset(names_of(source)[:1])
        if syntax := field_syntax(field):
            yield f"field {field.name!r}", syntax.top_names or frozenset()
    for when, route in conditions(settings.targets, settings.filters):
        if syntax := when_syntax(when, route):
            yield f"`when` of {route}", syntax.top_names or frozenset()


def reads(field: Field, sources: Iterable[str]) -> bool:
    """Whether the expression of a field reads the value of a source, or part of it."""
    syntax = field_syntax(field)
    if syntax is None:
        return False
    return any(syntax.tells_of(names_of(source)) for source in sources)


def reads_element(target: Target) -> bool:
    """Whether an expression of a target's fields reads the array that the target explodes."""
    if not target.explode:
        return False
    first = source_paths.explode_steps(target.explode)[0]
    tops = (syntax.top_names for syntax in map(field_syntax, target.fields) if syntax)
    return any(top is None or first in top for top in tops)
