"""The error for everything a user can put right."""


class UserError(ValueError):
    """A mistake the user can mend; the message is one line that says what to do.

    The command line prints the message without a traceback. In Python it is an ordinary ``ValueError``.
    """
