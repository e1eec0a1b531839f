"""The contracts of a search-space file and of an encoder's, for their authors to run: `bas check-space FILE` and
`bas check-encoder FILE`, or in a test of one's own.

@pytest.mark.parametrize("contract", CONTRACTS)
def test_my_space(contract: str) -> None:
    check("my_space.py", contract)


@pytest.mark.parametrize("contract", ENCODER_CONTRACTS)
def test_my_encoder(contract: str) -> None:
    check_encoder("my_encoder.py", contract)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bas.testing import encoder, space, task
from bas.testing.encoder import EncoderSubject
from bas.testing.subject import BrokenContractError, Subject

__all__ = [
    "CONTRACTS",
    "ENCODER_CONTRACTS",
    "BrokenContractError",
    "EncoderSubject",
    "Subject",
    "check",
    "check_encoder",
]

CONTRACTS: Mapping[str, Callable[[Subject], None]] = {
    "shape": space.every_candidate_gives_the_shape_due,
    "padding": space.padding_never_changes_an_output,
    "batch": space.a_batch_never_changes_an_output,
    "gradient": space.every_parameter_learns_under_soft_gates,
    "own": space.no_candidate_learns_for_another,
    "state": space.a_saved_state_is_the_whole_state,
    "discrete": space.one_hot_gates_are_the_built_network,
    "signature": space.the_signature_is_the_same_in_every_process,
    "seed": space.one_seed_gives_the_same_numbers_twice,
    "targets": task.targets_depend_on_their_own_utterance,
    "splits": task.splits_go_by_fields_of_an_utterance,
    "loss": task.the_loss_is_a_mean,
    "metrics": task.metrics_are_finite_and_highest_for_the_truth,
}
"""What a search-space file must hold, by the name that its result is shown under; the docstring says what it is."""


ENCODER_CONTRACTS: Mapping[str, Callable[[EncoderSubject], None]] = {
    "shape": encoder.every_wave_gives_the_shape_due,
    "frames": encoder.frames_are_as_many_as_the_rate_says,
    "least": encoder.the_shortest_wave_gives_a_frame,
    "finite": encoder.silence_and_full_scale_give_numbers,
    "again": encoder.the_same_wave_gives_the_same_again,
    "fresh": encoder.made_again_it_gives_the_same,
}
"""What an encoder's file must hold, likewise."""


def check(file: str, contract: str, width: int | None = None) -> None:
    """Hold a space file to one of CONTRACTS.

    file: the name of a shipped space, or a path. width: of the networks that are tried; None: that of the preset cpu.
    Raises BrokenContractError, an AssertionError, with the reason, and UserError for a file that cannot be read.
    """
    Subject.load(file, width).hold_to(CONTRACTS[contract])


def check_encoder(file: str, contract: str) -> None:
    """Hold an encoder's file, `my_encoder.py` or `my_encoder.py:Class`, to one of ENCODER_CONTRACTS, on the CPU.

    Raises as `check` does.
    """
    EncoderSubject.load(file).hold_to(ENCODER_CONTRACTS[contract])
