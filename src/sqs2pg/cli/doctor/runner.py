"""Run the checks one after the other, each within its own limit, whatever the others found.

It does not stop at a failure, so the report is complete. An error of ours becomes a finding with
the hint as its remedy. For an unforeseen error only its type is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import DoctorCheck, Finding, fail, warn
from sqs2pg.errors import Sqs2pgError


async def run(checks: Sequence[DoctorCheck], context: Context) -> AsyncIterator[Finding]:
    """Yield the findings of each check, in order, as they come."""
    for check in checks:
        for finding in await _run_one(check, context):
            yield finding


async def _run_one(check: DoctorCheck, context: Context) -> list[Finding]:
    name = check.name
    try:
        async with asyncio.timeout(check.limit_s):
            found = await check.run(context)
    except TimeoutError:
        remedy = "check the network and the load of what it asks; then run it again"
        return [fail(name, f"no answer within {check.limit_s:g} s", remedy)]
    except NotChecked as why:
        return [warn(name, f"not checked: {why}", "put that right first")]
    except Sqs2pgError as error:
        return [fail(name, error.what, error.hint)]
    except Exception as error:  # noqa: BLE001  its text may quote a value, so only its type is reported
        remedy = "this is a fault of sqs2pg: please report it with this line"
        return [fail(name, f"the check itself failed: {type(error).__name__}", remedy)]
    return found if isinstance(found, list) else [found]
