"""What the benchmark of the service measures, and with what."""
