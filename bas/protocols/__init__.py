"""Splits: folds whose parts never share what the task forbids; named, hashed, written down, checked, compared."""

from bas.protocols.allot import thin
from bas.protocols.base import FIELDS, Fold, Protocol, field_of, read, slug
from bas.protocols.check import check
from bas.protocols.rules import add_valid, default_rule, make

__all__ = [
    "FIELDS",
    "Fold",
    "Protocol",
    "add_valid",
    "check",
    "default_rule",
    "field_of",
    "make",
    "read",
    "slug",
    "thin",
]
