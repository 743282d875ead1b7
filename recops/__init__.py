"""recops: from an interaction log to a recommender that runs in production and stays good."""

__version__ = "0.1.0"
