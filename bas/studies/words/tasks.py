"""What the study of words predicts from a store."""

from __future__ import annotations

from bas.errors import UserError
from bas.experiment import SPACES, Experiment
from bas.protocols import Protocol
from bas.runs import choose
from bas.runs.choose import OpenStore
from bas.runs.run import Inputs
from bas.runs.start import split


def tasks_of(choice: Experiment, opened: OpenStore) -> tuple[tuple[tuple[str, Inputs, Protocol], ...], list[str]]:
    """What is predicted from a store; and what of it the corpus does not allow, with the reason.

    Only a task that the user did not name may be left out, and never the first.
    """
    tasks: dict[str, tuple[str, Inputs, Protocol]] = {}
    missing: list[str] = []
    for index, space in enumerate(choice.spaces or SPACES["words"]):
        inputs = choose.inputs_of(choice, "words", opened, layer=choose.every_state(opened), spaces=[space])
        task = inputs.task.name
        if task in tasks:
            raise UserError(f"--space {space}: task {task} is named twice; name one space for each")
        try:
            if index == 0:
                tasks[task] = task, inputs, choose.split_of(choice, inputs)
            else:
                tasks[task] = task, inputs, split(inputs, None, choice.protocol.seed)
        except UserError as error:
            if index == 0 or choice.spaces not in ((), SPACES["words"]):
                raise
            missing.append(f"task {task}: {error}")
    return tuple(tasks.values()), missing
