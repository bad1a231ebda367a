"""What can be seen of a running service from outside: numbers for Prometheus, spans for OpenTelemetry."""
