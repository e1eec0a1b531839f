"""What the contracts try a space file on: its networks, a few made-up features, a few made-up utterances.

Axes: B utterances, T frames, I the features' width, O outputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bas.corpora import Utterance
from bas.corpora.base import KNOWN
from bas.errors import UserError
from bas.networks.network import build
from bas.networks.supernet import Supernet
from bas.runs.run import common_task
from bas.runs.spaces import SpaceFile, load_space
from bas.space import Architecture, SearchSpace
from bas.tasks import Regression, Shares, Task, labels_of
from bas.training.settings import settings

IN_DIM, OUTPUTS = 12, 3
LENGTHS = (9, 1, 5, 14)
"""Frames of the utterances that networks are tried on."""

TOLERANCE = 1e-4
"""Of an output of order 1, relative and absolute: sums of another order differ in their last bits."""

UTTERANCES = 24

Forward = Callable[[Tensor, Tensor], Tensor]
"""`(x_BTI, mask_BT) -> outputs_BO`."""


class BrokenContractError(AssertionError):
    """A user's file does not hold a contract; the message, one line, says what was seen."""


@contextmanager
def broken_by_any_error() -> Iterator[None]:
    """Raise what a user's code raises in the block as a BrokenContractError."""
    try:
        yield
    except BrokenContractError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BrokenContractError(str(error) if isinstance(error, UserError) else reason) from error


@dataclass(frozen=True)
class Subject:
    """A space file under test. width: of its networks."""

    file: SpaceFile
    task: Task
    width: int

    @classmethod
    def load(cls, name_or_path: str, width: int | None = None) -> Subject:
        """Raises UserError for a file that cannot be read and a task that is none."""
        file = load_space(name_or_path)
        width = width or settings("cpu").width
        assert width is not None
        return cls(file, common_task([file]), width)

    @property
    def space(self) -> SearchSpace:
        return self.file.space

    def hold_to(self, contract: Callable[[Subject], None]) -> None:
        """Raises BrokenContractError; whatever else a user's code raises becomes one."""
        with broken_by_any_error():
            contract(self)

    def supernet(self) -> Supernet:
        """In eval mode, with no theta at its start."""
        torch.manual_seed(0)
        supernet = Supernet(self.space, IN_DIM, self.width, OUTPUTS).eval()
        with torch.no_grad():
            for part in supernet.mixed_parts().values():
                part.theta.normal_()
        return supernet

    def architectures(self) -> list[Architecture]:
        """A few of the space's: the first, the last, and each candidate of each part at least once."""
        first = {slot: next(iter(choices)) for slot, choices in self.space.searched.items()}
        last = {slot: list(choices)[-1] for slot, choices in self.space.searched.items()}
        draw = random.Random(0)
        mixed = [{slot: draw.choice(list(c)) for slot, c in self.space.searched.items()} for _ in range(5)]
        each = [{**last, slot: name} for slot, choices in self.space.searched.items() for name in choices]
        return list(dict.fromkeys(Architecture.of(blocks) for blocks in (first, last, *mixed, *each)))

    def networks(self) -> Iterator[tuple[str, Forward]]:
        """By name: the supernet under soft gates, architectures cut out of it, and the baselines; all in eval mode."""
        supernet = self.supernet()
        gates = supernet.probabilities()
        yield "the supernet under soft gates", lambda x_BTI, mask_BT: supernet(x_BTI, mask_BT, gates)
        for architecture in self.architectures():
            yield str(architecture), supernet.discrete(architecture)
        for name, baseline in (self.file.baselines or {}).items():
            yield f"baseline {name}", build(baseline, baseline.only(), IN_DIM, self.width, OUTPUTS).eval()

    def utterances(self) -> list[Utterance]:
        """With every field known, of three labels, six speakers, two languages; shares of the emotions of the task.

        Its own columns are known too: numbers in their ranges, else texts of six values.
        """
        draw, task = random.Random(1), self.task
        ranges = task.ranges if isinstance(task, Regression) else {}
        own = [name for name in dict.fromkeys((*labels_of(task), *task.disjoint)) if name not in KNOWN]
        emotions = (self.task.emotions if isinstance(self.task, Shares) else ()) or ("joy", "anger", "calm")
        return [
            Utterance(
                id=f"u{number:02}",
                audio=Path(f"u{number:02}.wav"),
                label=("happy", "sad", "neutral")[number % 3],
                speaker=f"speaker{number // 4}",
                session=f"session{number // 8}",
                split=("train", "train", "valid", "test")[number % 4],
                language=("de", "en")[number // 12],
                text=f"sentence {number % 5}",
                script=f"script {number % 4}",
                sex=("female", "male")[number // 4 % 2],
                shares=tuple((emotion, draw.randrange(11) / 10) for emotion in emotions),
                raters=10,
                others=tuple(
                    (name, str(draw.uniform(*ranges[name])) if name in ranges else f"{name} {number // 4}")
                    for name in own
                ),
            )
            for number in range(UTTERANCES)
        ]


def features(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    """Random frames, `(T, I)` each."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, IN_DIM, generator=generator) for length in lengths]


def padded(frames: Sequence[Tensor], length: int, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """`x_BTI` of that many frames and its mask; random numbers of that size on the padding."""
    x_BTI = torch.randn(len(frames), length, IN_DIM, generator=torch.Generator().manual_seed(2)) * noise
    for row_TI, x_TI in zip(x_BTI, frames, strict=True):
        row_TI[: len(x_TI)] = x_TI
    return x_BTI, torch.arange(length) < torch.tensor([len(x_TI) for x_TI in frames])[:, None]


def close(outputs_BO: Tensor, expected_BO: Tensor) -> bool:
    return torch.allclose(outputs_BO, expected_BO, rtol=TOLERANCE, atol=TOLERANCE)


def weights_of(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Of a supernet's state, what an architecture's own network has, under the names it has there."""
    weights = {}
    for parameter, value in state.items():
        for part, choice in architecture.blocks:
            if parameter.startswith(f"parts.{part}.candidates.{choice}."):
                weights[parameter.replace(f".candidates.{choice}.", ".", 1)] = value
        if ".candidates." not in parameter and not parameter.endswith(".theta"):
            weights[parameter] = value
    return weights
