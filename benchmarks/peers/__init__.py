"""recops' sequence models beside those of other libraries, each in its own environment."""
