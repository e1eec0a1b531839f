"""`bas`: which downstream model should sit on a frozen speech encoder's features?"""

__version__ = "0.3.0"
NUMBERS = __version__.rpartition(".")[0]
"""While this stays, the same command gives the same numbers and files: a run of another is not gone on with."""
