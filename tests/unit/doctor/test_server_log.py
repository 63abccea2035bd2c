"""Which settings of the server put parameters of statements into its log."""

from __future__ import annotations

import pytest

from sqs2pg.cli.doctor.check_server_log import parameters_logged

DEFAULTS = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_statement_sample_rate": "1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "0",
}


@pytest.mark.parametrize(
    ("changes", "causes", "remedies"),
    [
        ({}, [], set()),
        ({"log_statement": "ddl"}, [], set()),
        ({"log_statement": "mod"}, ["log_statement = mod"], {"log_parameter_max_length = 0"}),
        (
            {"log_statement": "all", "log_min_duration_statement": "0"},
            ["log_statement = all", "log_min_duration_statement = 0"],
            {"log_parameter_max_length = 0"},
        ),
        ({"log_statement": "all", "log_parameter_max_length": "0"}, [], set()),
        ({"log_min_duration_sample": "5", "log_statement_sample_rate": "0"}, [], set()),
        (
            {"log_min_duration_sample": "5"},
            ["log_min_duration_sample = 5"],
            {"log_parameter_max_length = 0"},
        ),
        (
            {"log_transaction_sample_rate": "0.01"},
            ["log_transaction_sample_rate = 0.01"],
            {"log_parameter_max_length = 0"},
        ),
        (
            {"log_parameter_max_length_on_error": "-1"},
            ["log_parameter_max_length_on_error = -1"],
            {"log_parameter_max_length_on_error = 0"},
        ),
        (
            {"auto_explain.log_min_duration": "100", "auto_explain.log_parameter_max_length": "-1"},
            ["auto_explain.log_min_duration = 100"],
            {"auto_explain.log_parameter_max_length = 0"},
        ),
        ({"auto_explain.log_min_duration": "-1"}, [], set()),
        (
            {"pgaudit.log": "write", "pgaudit.log_parameter": "on"},
            ["pgaudit.log = write"],
            {"pgaudit.log_parameter = off"},
        ),
        ({"pgaudit.log": "write", "pgaudit.log_parameter": "off"}, [], set()),
    ],
)
def test_what_puts_parameters_into_the_log(
    changes: dict[str, str], causes: list[str], remedies: set[str]
) -> None:
    found = parameters_logged(DEFAULTS | changes)
    assert [cause for cause, _ in found] == causes
    assert {remedy for _, remedy in found} == remedies
