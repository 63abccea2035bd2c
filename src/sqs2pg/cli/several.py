"""Do something for each of several pipelines: one that fails keeps no other one from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from sqs2pg.cli import print_error
from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault, SettingsError, Sqs2pgError
from sqs2pg.fault_codes import remedy_of

if TYPE_CHECKING:
    from sqs2pg.cli.run_pipeline import Failure

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


def raise_if_failed(failed: Mapping[str, Sqs2pgError | Failure]) -> None:
    """Raise what sums up the failures, with the worst exit code; nothing where there are none.

    Their own errors were printed.
    """
    if not failed:
        return
    fault = FatalFault(
        f"{counted(len(failed), 'pipeline')} failed: {', '.join(sorted(failed))}",
        code="pipelines_failed",
        hint="their own errors are above",
    )
    fault.exit_code = max(one.exit_code for one in failed.values())
    raise fault
