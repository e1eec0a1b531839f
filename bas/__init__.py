"""`bas`: which downstream model should sit on a frozen speech encoder's features?"""

__version__ = "0.1.0"
