"""Checks of the masking policy: what becomes of each field, and what stays readable."""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, ok, warn
from sqs2pg.cli.doctor.personal_names import category_of, mentions_personal
from sqs2pg.mapping.known_names import member_names
from sqs2pg.mask.registry import KEYED, properties
from sqs2pg.runners.compile_plan import masks_of
from sqs2pg.settings import Field, Settings
from sqs2pg.settings.expression_rules import field_syntax


async def check_masking(context: Context) -> list[Finding]:
    """Report what each mask is worth; warn of fields that look personal and are kept."""
    settings = context.settings
    fields = settings.fields
    needs_key = any(field.mask in KEYED for field in fields)
    if needs_key:
        masks_of(settings, context.keyring())
    masked = [field for field in fields if field.mask != "keep"]
    findings = [_masked(field) for field in masked]
    kept = [field.name for field in fields if field.mask == "keep"]
    personal = [field.name for field in fields if field.mask == "keep" and _is_personal(field)]
    if personal:
        findings.append(
            warn(
                "masking policy",
                f"kept as they are, and personal by their names: {', '.join(personal)}",
                'give each a mask, or mask = "drop" where it is not needed',
            )
        )
    elif not masked:
        remedy = "give the sensitive fields a mask; docs/reference/masking.md lists them"
        findings.append(warn("masking policy", "no field is masked", remedy))
    else:
        shown = ", ".join(kept) or "none"
        dropped = f"dropped: {', '.join(settings.dropped)}; " if settings.dropped else ""
        rest = f"{dropped}unknown fields: {settings.unknown_fields}"
        findings.append(ok("masking policy", f"{len(masked)} masked; kept: {shown}; {rest}"))
    return findings + _erasure(settings)


def _is_personal(field: Field) -> bool:
    """Whether a field is named like personal data. Ids are often kept on purpose."""
    if field.type == "boolean":
        return False  # such as email_verified
    if mentions_personal(field.name):
        return True
    read = [member_names(source) for source in field.sources]
    syntax = field_syntax(field)
    read += [list(path) for path in syntax.reads if path] if syntax else []
    return any(category_of(names) not in (None, "person_id") for names in read)


def _erasure(settings: Settings) -> list[Finding]:
    """Warn of targets in which `forget` could not find the rows of a person."""
    if not settings.vault.enabled:
        return []
    subject = settings.vault.subject
    lost = [
        target.table
        for target in settings.targets
        if not any(
            declared.deterministic and declared.joinable
            for field in target.fields
            if field.first_source == subject
            for declared in [properties(field.mask)]
        )
    ]
    if not lost:
        return []
    return [
        warn(
            "masking subject",
            f"no column of {', '.join(lost)} shows by {subject} (vault.subject) whose row it is: "
            "`sqs2pg forget` will refuse to erase anybody",
            f'keep {subject}, or mask it with "pseudonymize", whose masks are found again',
        )
    ]


def _masked(field: Field) -> Finding:
    declared = properties(field.mask)
    traits = [
        "deterministic" if declared.deterministic else "another each time",
        "joinable" if declared.joinable else "not joinable",
        "opened with the key" if declared.recoverable else "",
        "reversible by anyone" if declared.reversible else "",
    ]
    detail = f"{field.mask} into {field.column}: {', '.join(filter(None, traits))}"
    if declared.reversible:
        remedy = 'use mask = "pseudonymize"; `sqs2pg check --attack` says how long it holds'
        return warn(f"masking {field.name}", detail, remedy)
    return ok(f"masking {field.name}", detail)
