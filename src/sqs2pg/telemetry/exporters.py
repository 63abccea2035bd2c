"""What is sent every so often, as readings of the watch: on a loop of its own, through faults."""

from __future__ import annotations

import asyncio

from sqs2pg.settings import Settings
from sqs2pg.telemetry.emf import MetricLines
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.otlp import start_export
from sqs2pg.telemetry.periodic import Reading


def telemetry_readings(settings: Settings, metrics: Metrics) -> list[Reading]:
    """Return what the settings ask for; nothing by default. Raises SettingsError."""
    telemetry, pipeline = settings.telemetry, settings.pipeline_name
    readings = []
    if export := start_export(telemetry, metrics.registry, metrics.started_at, pipeline):

        async def send() -> None:
            await asyncio.to_thread(export.send)

        readings.append(Reading("otlp", telemetry.every_s, send, at_end=True))
    if telemetry.emf:
        lines = MetricLines(metrics.registry, pipeline)

        async def print_line() -> None:
            print(lines.next_line(), flush=True)

        readings.append(Reading("emf", telemetry.every_s, print_line, at_end=True))
    return readings
