"""SQS to PostgreSQL: read JSON events from a queue, mask the sensitive fields, write the rows."""

__version__ = "0.1.0"
