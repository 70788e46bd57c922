"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake in the input, said in one sentence: what was wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
