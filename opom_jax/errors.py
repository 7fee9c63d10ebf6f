"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, key or flag at fault and the mend."""


def first_line(error: BaseException) -> str:
    """What an error of another package says, in one printable line without its full stop."""
    reason = str(getattr(error, "strerror", None) or error).strip()
    line = reason.splitlines()[0][:200] if reason else type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line).rstrip(".")
