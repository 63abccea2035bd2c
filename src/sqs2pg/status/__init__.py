"""Metrics and health of one process over HTTP, on loopback unless told otherwise."""
