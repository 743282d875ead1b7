"""How new items fare without any training: see `__main__.py`."""
