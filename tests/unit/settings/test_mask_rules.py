"""Which masks a mapping may use for which field, and what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.mask.operator import KINDS
from sqs2pg.mask.registry import OPERATORS
from sqs2pg.settings import USER_LOGINS, Field
from sqs2pg.settings.mask_rules import check_fields


def field(mask: str, **values: Any) -> Field:
    return Field(**{"source": "a", "column": "a", "mask": mask, **values})


def check(*fields: Field, accept: bool = False) -> None:
    check_fields(fields, accept_reversible=accept, cost=lambda: "all are tried in 5 s")


def refused(*fields: Field, accept: bool = False) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        check(*fields, accept=accept)
    assert caught.value.hint
    return caught.value


def test_the_built_in_mapping_passes() -> None:
    check(*USER_LOGINS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_kinds_are_those_that_the_operator_declares(name: str, kind: str) -> None:
    if kind in OPERATORS[name].properties.kinds:
        check(field(name, kind=kind), accept=True)
    else:
        error = refused(field(name, kind=kind), accept=True)
        assert error.code == "operator_kind"
        assert repr(OPERATORS[name].properties.kinds[0]) in error.hint


def test_an_unknown_operator_is_refused_with_the_settings() -> None:
    error = refused(field("pseudonymise"))
    assert (error.code, error.hint) == ("unknown_operator", "did you mean pseudonymize?")


def test_a_reversible_mask_wants_consent_and_its_refusal_tells_the_time() -> None:
    error = refused(field("sha256"))
    assert error.code == "reversible_mask"
    assert "all are tried in 5 s" in error.what
    assert "i_accept_reversible" in error.hint
    check(field("sha256"), accept=True)
    check(field("keep"))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("type_", ["version", "major", "date"])
def test_text_goes_to_text(name: str, type_: str) -> None:
    kind = OPERATORS[name].properties.kinds[0]
    if name in ("keep", "redact", "nullify"):
        check(field(name, type=type_))
    else:
        assert refused(field(name, type=type_, kind=kind), accept=True).code == "mask_type"


@pytest.mark.parametrize("name", OPERATORS)
def test_a_recoverable_mask_must_give_one_token_per_value(name: str) -> None:
    kind = OPERATORS[name].properties.kinds[0]
    found = name in ("pseudonymize", "encrypt_deterministic", "fpe_ff1", "sha256")
    if found:
        check(field(name, kind=kind, recover=True), accept=True)
    else:
        assert refused(field(name, kind=kind, recover=True)).code == "mask_not_recoverable"


def test_keep_cannot_be_recoverable() -> None:
    error = refused(field("keep", recover=True))
    assert error.code == "mask_not_recoverable"
    assert "cleartext value as its own token" in error.what


@pytest.mark.parametrize("domain", ["a\tb", "é" * 128, "\ud800", "a\u2028b"])
def test_a_bad_domain_is_refused_with_the_settings_by_the_name_of_its_field(domain: str) -> None:
    error = refused(field("pseudonymize", domain=domain))
    assert error.code == "bad_domain"
    assert error.what.startswith("field 'a': ")
    check(field("partial", domain=domain))  # whose mask has no key


def test_few_possible_values_are_no_domain_for_ff1() -> None:
    error = refused(field("fpe_ff1", possible_values=999_999))
    assert error.code == "too_few_values"
    assert "1,000,000 possible values or more, and the field has 999,999" in error.what
    check(field("fpe_ff1", possible_values=1_000_000), field("pseudonymize", possible_values=1))


def test_a_masked_field_is_not_kept_beside_its_mask() -> None:
    kept = field("keep", column="b")
    for name in ("pseudonymize", "encrypt", "redact"):
        assert refused(field(name), kept).code == "kept_beside_mask"
    check(field("keep"), kept)
    check(field("pseudonymize"), field("partial", column="b"))


def test_a_shared_domain_is_for_fields_that_join() -> None:
    one = field("pseudonymize", domain="address", kind="ip")
    check(one, field("pseudonymize", source="b", column="b", domain="address", kind="ip"))
    for other in ({"mask": "encrypt", "kind": "ip"}, {"mask": "pseudonymize", "kind": "text"}):
        error = refused(one, Field(source="b", column="b", domain="address", **other))  # type: ignore[arg-type]
        assert error.code == "domain_mixed"
        assert "would not join" in error.what
