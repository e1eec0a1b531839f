"""The one exception a user's mistake raises; `bas` prints it as one line and exits with code 2."""


class UserError(ValueError):
    """Bad input from outside: a file, a setting, a corpus.

    The message is one line that names the file, the field and the allowed values.
    A mistake of our own is an assertion instead, and keeps its traceback.
    """
