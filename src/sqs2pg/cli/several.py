"""Do something for each of several pipelines: one that fails keeps no other one from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from sqs2pg.cli import print_error
from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault, SettingsError, Sqs2pgError
from sqs2pg.fault_codes import remedy_of

T = TypeVar("T")
_NONE: Mapping[Path, SettingsError] = MappingProxyType({})


def for_each(
    acts: Mapping[str, Callable[[], T]], refused: Mapping[Path, SettingsError] = _NONE
) -> tuple[dict[str, T], dict[str, Sqs2pgError]]:
    """Do one act per pipeline, by its name; return what each has returned, or raised.

    An error is printed when it comes, with the pipeline's name. `refused` are files that cannot be
    used, which fail beside the others. The error of the only pipeline there is is raised.
    """
    done: dict[str, T] = {}
    failed: dict[str, Sqs2pgError] = {}
    for name, act in acts.items():
        try:
            done[name] = act()
        except Sqs2pgError as error:
            if len(acts) + len(refused) == 1:
                raise
            failed[name] = error
            _tell(name, error)
    for file, refusal in refused.items():
        failed[str(file)] = refusal
        _tell(str(file), refusal)
    return done, failed


def _tell(name: str, error: Sqs2pgError) -> None:
    hint = error.hint or remedy_of(error.code)
    print_error(f"{name}: {error.what}", hint, code=error.code)


def failure(names: Iterable[str], *, exit_code: int) -> FatalFault:
    """Return the error that sums up which pipelines failed; their own errors were printed."""
    found = sorted(names)
    fault = FatalFault(
        f"{counted(len(found), 'pipeline')} failed: {', '.join(found)}",
        code="pipelines_failed",
        hint="their own errors are above",
    )
    fault.exit_code = exit_code
    return fault


def raise_if_failed(failed: Mapping[str, Sqs2pgError]) -> None:
    """Raise what sums up the failures, with the worst exit code; nothing where there are none."""
    if failed:
        raise failure(failed, exit_code=max(error.exit_code for error in failed.values()))
