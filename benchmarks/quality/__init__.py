"""Remakes the tables of published records: `python -m benchmarks.quality`; see __main__.py."""
