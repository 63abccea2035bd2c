"""Check of the database server's log: whether it gets the parameters of statements.

Parameters are tokens, references of people and message ids. An erasure cannot reach them there.
"""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, ok, warn

_SETTINGS = """SELECT name, setting FROM pg_catalog.pg_settings
WHERE name LIKE 'log\\_%' OR name LIKE 'auto\\_explain.%' OR name LIKE 'pgaudit.%'"""


async def check_server_log(context: Context) -> Finding:
    """Whether statements are logged with their parameters, as this login's settings have it."""
    name = "database log"
    found = dict(await context.query(_SETTINGS))
    causes = parameters_logged(found)
    if not causes:
        return ok(name, "no parameters of statements are logged")
    remedies = dict.fromkeys(remedy for _, remedy in causes)
    return warn(
        name,
        f"{', '.join(cause for cause, _ in causes)}: statements go to the server's log with their "
        "parameters, such as tokens and references of people, which no erasure reaches",
        f"have a superuser set {', '.join(remedies)}, or let the log expire as the rows do",
    )


def parameters_logged(found: dict[str, str]) -> list[tuple[str, str]]:
    """Return each setting that puts parameters into the log, and the one that keeps them out.

    `found` are the server's settings by name. An extension that is not loaded has none.
    """

    def shown(name: str) -> str:
        return f"{name} = {found[name]}"

    causes: list[tuple[str, str]] = []
    if found.get("log_parameter_max_length", "-1") != "0":
        logged = {
            "log_statement": found.get("log_statement") in ("mod", "all"),
            "log_min_duration_statement": _at_least_0(found, "log_min_duration_statement"),
            "log_min_duration_sample": _at_least_0(found, "log_min_duration_sample")
            and _above_0(found, "log_statement_sample_rate"),
            "log_transaction_sample_rate": _above_0(found, "log_transaction_sample_rate"),
        }
        without = "log_parameter_max_length = 0"
        causes += [(shown(name), without) for name, on in logged.items() if on]
    if found.get("log_parameter_max_length_on_error", "0") != "0":
        name = "log_parameter_max_length_on_error"
        causes.append((shown(name), f"{name} = 0"))
    if _at_least_0(found, "auto_explain.log_min_duration"):
        name = "auto_explain.log_parameter_max_length"
        if found.get(name, "-1") != "0":
            causes.append((shown("auto_explain.log_min_duration"), f"{name} = 0"))
    if found.get("pgaudit.log", "none") != "none" and found.get("pgaudit.log_parameter") == "on":
        causes.append((shown("pgaudit.log"), "pgaudit.log_parameter = off"))
    return causes


def _at_least_0(found: dict[str, str], name: str) -> bool:
    return float(found.get(name, "-1")) >= 0


def _above_0(found: dict[str, str], name: str) -> bool:
    return float(found.get(name, "0")) > 0
