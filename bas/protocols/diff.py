"""How two splits differ."""

from __future__ import annotations

from collections import Counter

from bas.protocols.base import Protocol

NAMED = 3  # of the utterances that moved


def differences(one: Protocol, other: Protocol) -> list[str]:
    """Lines: the two hashes, then for each fold which utterances moved from which part to which."""
    lines = [f"{one.name}: {one.rule}, {one.hash}", f"{other.name}: {other.rule}, {other.hash}"]
    if one.hash == other.hash:
        return [*lines, "the same split"]
    if len(one.folds) != len(other.folds):
        lines.append(f"{len(one.folds)} folds, now {len(other.folds)}")
    for index, (a, b) in enumerate(zip(one.folds, other.folds, strict=False)):
        before, after = ({i: part for part, ids in fold.parts().items() for i in ids} for fold in (a, b))
        moved = {i: (before.get(i, "nowhere"), after.get(i, "nowhere")) for i in before | after}
        moves = Counter(move for move in moved.values() if move[0] != move[1])
        for (source, to), count in sorted(moves.items()):
            names = [repr(i) for i, move in sorted(moved.items()) if move == (source, to)][:NAMED]
            more = ", ..." if count > NAMED else ""
            lines.append(f"fold {index}: {count} of {len(moved)} from {source} to {to}: {', '.join(names)}{more}")
    return lines
