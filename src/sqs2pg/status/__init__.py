"""Metrics, health and the status page of one process over HTTP, on loopback by default."""
