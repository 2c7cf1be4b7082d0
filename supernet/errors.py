"""The one error type for whatever a user can mend."""


class UserError(ValueError):
    """A problem that the user can mend; its text is one line: what, where, and what to do.

    The command line prints the line without a traceback and exits with code 2.
    """
