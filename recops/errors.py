"""The errors a user can cause, each with the exit code the command line gives it.

Every message says which file, column or key, what was found there and what to do about it. Mistakes of our own
are plain assertions and keep their traceback.
"""


class RecopsError(ValueError):
    """A user's mistake, or data and models that cannot be used as they are."""

    exit_code = 2


class CallError(RecopsError):
    """The call was wrong: a missing file, an unknown name, a bad parameter (exit 2)."""


class TooLargeError(CallError):
    """The data is larger than a model is allowed to take, or would fit in memory."""


class RefusedError(RecopsError):
    """The data or the model was refused by a rule: nothing was released (exit 1)."""

    exit_code = 1


class BundleError(RecopsError):
    """A bundle that is altered, cut short, unreadable or of a newer format (exit 1)."""

    exit_code = 1
