"""Lines of the ledger that Python adds to those of C code."""

from __future__ import annotations

import pytest

from sqs2pg.postgres.ledger import merged, merged_in_python


@pytest.mark.timeout(30)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_lines_are_merged_in_their_order(count: int) -> None:
    held = [f"{2 * number:03}\tx\n".encode() for number in range(count)]
    for more in ([b"000\ta\n"], [b"001\t\n", b"003\tlong\n"], [b"050\tx\n"] * 2, [b"999\t\n"]):
        whole = b"".join(sorted([*held, *more]))
        assert merged(b"".join(held), more) == whole
        assert merged_in_python(b"".join(held), more) == whole
