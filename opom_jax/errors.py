"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, key or flag at fault and the mend."""
