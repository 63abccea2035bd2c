"""Logs, metrics and liveness; and spans and metrics for other systems, which are off by default."""
