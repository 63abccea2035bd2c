"""The fault tree: what can go wrong, and which route each fault takes.

A permanent fault belongs to one message and sends it to quarantine. A transient fault comes from
outside (AWS, PostgreSQL, the network): the messages are kept under lease and tried again. A fatal
fault stops the process with one `error:` line and one `hint:` line.

A fault carries codes and names only. It must never carry a body, a field's value, a driver's
message or another exception's text: all of these may quote personal data.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Stage(StrEnum):
    """The hop of the pipeline a fault happened in; a bounded metric label."""

    RECEIVE = "receive"
    DECODE = "decode"
    MASK = "mask"
    WRITE = "write"
    ACKNOWLEDGE = "acknowledge"
    STATUS = "status"


class Sqs2pgError(Exception):
    """Root of every fault raised by this package.

    `code` is a short snake_case word from a bounded set, fit for a metric label. `what` says
    what happened and to what, in words that quote no value. `hint` says what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, code: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.hint = hint


class SettingsError(Sqs2pgError):
    """The settings, the command line or the environment are wrong. Exit code 2.

    `table` and `column` are those that a mapping does not fit, where it is about such.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        code: str = "settings",
        hint: str = "",
        table: str = "",
        column: str = "",
    ) -> None:
        super().__init__(what, code=code, hint=hint)
        self.table = table
        self.column = column


class KeyFault(Sqs2pgError):
    """A key is missing, short, equal to another, or not the one on record. Exit code 2.

    The process stops: nothing is ever written unmasked.
    """

    exit_code = 2


class FatalFault(Sqs2pgError):
    """The process cannot go on and retrying will not help (queue deleted, access denied).

    Unless it `passes`: a command met what ends by itself, such as a restart of the database.
    """

    passes = False


class TransientFault(Sqs2pgError):
    """AWS, PostgreSQL or the network fails for now: keep the messages under lease, try again.

    `table` is the one that was being written, `schema.table`, where there is one. `column` is the
    one that does not fit the mapping. `day` is the one that the table has no partition for, as an
    ISO date.
    """

    def __init__(
        self,
        what: str,
        *,
        code: str,
        hint: str = "",
        stage: Stage = Stage.WRITE,
        table: str = "",
        column: str = "",
        day: str = "",
    ) -> None:
        super().__init__(what, code=code, hint=hint)
        self.stage = stage
        self.table = table
        self.column = column
        self.day = day

    @property
    def named(self) -> dict[str, str]:
        """What it names and advises, for a line of the log."""
        known = {"table": self.table, "column": self.column, "day": self.day, "hint": self.hint}
        return {name: value for name, value in known.items() if value}


class PermanentFault(Sqs2pgError):
    """One message can never become a row: quarantine it with `code`.

    `detail` names a field, a column, a constraint or a record's index, never a value. `table`: the
    one that the message's rows are for, where only the fault tells.
    """

    def __init__(
        self, code: str, detail: str = "", *, stage: Stage = Stage.DECODE, table: str = ""
    ) -> None:
        super().__init__(f"{code} {detail}".rstrip(), code=code)
        self.detail = detail
        self.stage = stage
        self.table = table


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was probably meant, for a hint; None where none is alike.

    `cutoff`: how alike at least, 0 to 1.
    """
    import difflib  # only here: a start of right settings needs none

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def unforeseen(error: BaseException) -> tuple[str, str]:
    """Return where an unexpected exception was raised, and a hint: its type, never its text."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    where = "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        if "sqs2pg" in code.co_filename:
            file = code.co_filename.rpartition("/")[2]
            where = f"{file}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return (
        f"unexpected {type(error).__name__} at {where}",
        "this is a fault of sqs2pg: please report it with this line",
    )
