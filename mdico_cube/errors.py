"""One exception for everything a user can mend: the rule, what came, and the way out in one sentence."""


class MdicoError(Exception):
    """A fault the user can mend. Its text is one clear sentence or two; the command line prints it and exits with 2."""
