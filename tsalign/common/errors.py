"""The one exception for what a user can mend."""


class TsalignError(Exception):
    """Bad input or a missing piece: the message names the file, line or key, what was expected, and the mend."""
