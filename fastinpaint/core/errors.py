"Errors that the user can mend, and reasons told line by line"


class InputError(ValueError):
    """Something given does not fit: the message says what, what is expected, and how to mend it.

    Commands show it as one line; other exceptions are bugs and keep their traceback."""


class MissingFile(InputError, FileNotFoundError):
    "A file or folder that was named is not there"


class Unreachable(InputError, ConnectionError):
    "Something has to be downloaded and cannot be"


class MissingPackage(InputError, ImportError):
    "A package of an optional extra is not installed; the message says which to install"


class Diverged(InputError, FloatingPointError):
    "A loss is NaN or infinite, most often because the learning rate is too high"


def with_reasons(head, reasons):
    "`head`, and a line for each of `reasons`, path → why"
    return "\n  ".join([head + ":"*bool(reasons), *(f"{path}: {why}" for path, why in reasons.items())])
