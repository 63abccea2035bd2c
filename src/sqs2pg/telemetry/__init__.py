"""What is sent to others: spans and metrics by OpenTelemetry, CloudWatch lines. Off by default."""
