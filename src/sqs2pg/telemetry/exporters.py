"""The exports of a running pipeline, as periodic readings: each has a loop of its own."""

from __future__ import annotations

import asyncio

import structlog

from sqs2pg.settings import Settings
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import PeriodicReading

log = structlog.get_logger(__name__)


def telemetry_readings(settings: Settings, metrics: Metrics) -> list[PeriodicReading]:
    """Return the exports that the settings ask for; none by default. Raises SettingsError.

    `telemetry.emf` is for the Lambda handler. One settings file may serve both, so here it is only
    logged that it has no effect.
    """
    telemetry = settings.telemetry
    if telemetry.emf:
        log.warning("telemetry.emf has no effect outside AWS Lambda", code="emf_outside_lambda")
    if not telemetry.metrics:
        return []
    from sqs2pg.telemetry.otlp import start_export

    export = start_export(telemetry, metrics.registry, metrics.started_at, settings.pipeline_name)
    if export is None:
        return []

    async def send() -> None:
        await asyncio.to_thread(export.send)

    return [PeriodicReading("otlp", telemetry.every_s, send, at_end=True)]
