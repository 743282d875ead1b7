"""What serving costs beside the arithmetic itself: `python -m benchmarks.serving`; see __main__.py."""
