"""The one exception that is meant for people."""


class UserError(Exception):
    """Something the user can mend.

    The message is one clear sentence or two: it names the file or setting, what is wrong with it
    and what to do. Command lines and stages print it without a traceback and exit with status 1.
    """
