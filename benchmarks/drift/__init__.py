"""`python -m benchmarks.drift`: false alarms and power of the drift tests."""
