"""The one error that the user can fix."""


class UserError(ValueError):
    """An error that the user can fix.

    Its text is one line: what is wrong, what was received and what to do. The commands
    print it as `error: ...` and exit with 2.
    """
