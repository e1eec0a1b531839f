"""Train one architecture or search one space in a fold of a run: the steps of jobs and trials.

Nothing here scores a test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bas.networks.committee import Committee
from bas.networks.linear import LinearModel
from bas.networks.network import Network, PerOutput, build
from bas.networks.supernet import Supernet
from bas.protocols import Fold
from bas.runs.losses import Losses
from bas.runs.session import Session
from bas.runs.solved import Solved, solvable, solve
from bas.search.ensemble import Member
from bas.search.search import SearchOutcome, search
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data
from bas.training.loop import APART, Epoch, Forward, Record, optimise, outputs, seed_everything, seed_of
from bas.training.settings import Settings
from bas.training.stack import Loss


@dataclass(frozen=True)
class Fitted:
    """A trained network or committee with the weights of its best epochs, its data, and the records of each network.

    data: as the last network saw it; utterances of other speakers than it was trained on are the same for all. stops:
    of a `PerOutput` the epoch that each of its networks keeps.
    """

    network: Network | LinearModel | Committee
    data: Data
    curves: tuple[list[Record], ...]
    seconds: float
    stops: tuple[int, ...] = ()

    @property
    def kept(self) -> list[Record]:
        """For each network the record of the epoch whose weights it has."""
        return [max(records, key=lambda r: (r["score"], -r["epoch"])) for records in self.curves]


def fit_row(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
) -> Fitted:
    """Train one architecture as a row of a table is: `settings.committee` networks, each kept by another inner fold.

    A committee of one is `fit`, or `fit_again` where the settings say `refit`. What has no block is one model in place
    of a committee: its regularisation is chosen on the inner folds, and it is fitted on all training units, as the
    linear row is. after_epoch: as in `fit`; the record also says which `member` it is of. checkpoint: each network's
    has its number in its name, and stays when it is done.
    """
    if settings.committee == 1:
        one = fit_again if settings.refit else fit
        return one(session, space, architecture, settings, fold, seed, after_epoch, checkpoint)
    inner = session.inner_folds(fold, settings.committee)
    if summary := solvable(session, space, architecture):
        whole = session.run.protocol.folds[fold].joined()
        return _solved(solve(session, summary, settings, fold, inner, whole), after_epoch)
    members = []
    for number, parts in enumerate(inner):

        def after(record: Record, number: int = number) -> None:
            after_epoch({**record, "member": number})

        path = checkpoint and member_path(checkpoint, number)
        members.append(fit(session, space, architecture, settings, fold, seed, after, path, parts, number))
    committee = Committee([member.network for member in members]).eval()
    curves = tuple(member.curves[0] for member in members)
    return Fitted(committee, members[-1].data, curves, sum(member.seconds for member in members))


def fit_ensemble(
    session: Session,
    space: SearchSpace,
    members: Sequence[Member],
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Callable[[Architecture], Path],
) -> Fitted:
    """`fit_row` for each architecture of an ensemble, their outputs averaged by weight; of one alone, `fit_row`.

    checkpoint: gives that of an architecture. The networks of all are numbered through.
    """
    if len(members) == 1:
        architecture = Architecture.of(members[0].architecture)
        return fit_row(session, space, architecture, settings, fold, seed, after_epoch, checkpoint(architecture))
    fitted: list[Fitted] = []
    for member in members:
        before = sum(len(one.curves) for one in fitted)

        def after(record: Record, before: int = before) -> None:
            after_epoch({**record, "member": before + record.get("member", 0)})

        architecture = Architecture.of(member.architecture)
        path = checkpoint(architecture)
        fitted.append(fit_row(session, space, architecture, settings, fold, seed, after, path))
    network = Committee([one.network for one in fitted], [member.weight for member in members]).eval()
    curves = tuple(curve for one in fitted for curve in one.curves)
    return Fitted(network, fitted[-1].data, curves, sum(one.seconds for one in fitted))


def member_path(checkpoint: Path, number: int) -> Path:
    """The checkpoint of one network of a committee."""
    return checkpoint.with_suffix(f".{number}{checkpoint.suffix}")


def fit(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
    parts: Fold | None = None,
    member: int = 0,
    keep_checkpoint: bool = False,
) -> Fitted:
    """Train one architecture on a fold's fit part; the epoch of the lowest validation loss is kept (early stopping).

    What has no block is solved (`bas.runs.solved`); its only epoch is then the record.

    settings: the run's, or others (`tune`). after_epoch: takes each epoch's record: epoch, loss (training), valid
    (loss and metrics), score (negative validation loss); if it raises, the training ends. The test part is not used.
    parts: an inner fold to train and stop on instead; its checkpoint stays when it is done, as with keep_checkpoint.
    member: another number is another seed.
    """
    inner, parts = parts is not None, parts or session.run.protocol.folds[fold]
    if summary := solvable(session, space, architecture):
        return _solved(solve(session, summary, settings, fold, [parts], parts), after_epoch)
    network, data, loss = _begin(session, space, architecture, settings, fold, seed, parts, member)
    valid = session.members(parts.valid)

    def record(epoch: Epoch) -> Record:
        scores = valid_scores(session, network, data, valid, loss.held)
        result = {"epoch": epoch.index, "loss": epoch.loss, "valid": scores, "score": -scores["loss"]}
        result |= session.mix(network)
        after_epoch(result)
        return result | _apart(session, network, data, valid, loss.held)

    records, seconds = optimise(
        network,
        _forward(network),
        loss.fit,
        data,
        session.members(parts.fit),
        replace(settings, warmup=0),  # only for a search: here a layer mix learns from the first step
        seed_of(fold, seed, member),
        record,
        checkpoint,
        keep_best="score",
        keep_checkpoint=inner or keep_checkpoint,
    )
    apart = zip(*(record.get(APART, ()) for record in records), strict=True)
    stops = tuple(scores.index(max(scores)) for scores in apart)
    records = [{name: value for name, value in record.items() if name != APART} for record in records]
    return Fitted(network, data, (records,), seconds, stops)


def _begin(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    fold: int,
    seed: int,
    parts: Fold,
    member: int = 0,
) -> tuple[Network, Data, Losses]:
    """A network with its initial weights, standardised by the fit part of `parts`; its data; its losses."""
    data, fit_part = session.derived(session.layer(fold), parts, settings), session.members(parts.fit)
    seed_everything(seed, fold, *([member] if member else []), "initial weights")
    dims = data.dim, settings.width or data.dim, len(session.run.outputs)
    made = build(space, architecture, *dims, settings.dropout, settings.residual == "every", data.states)
    network = made.to(session.device)
    if settings.normalise != "none":
        network.standardise.set(*data.moments(fit_part))
    return network, data, session.run.losses(settings, fit_part)


def _forward(network: Network) -> Forward:
    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        out: Tensor = network(x_BTD, mask_BT)
        return out

    return forward


def fit_again(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
) -> Fitted:
    """`fit`, then the same from its initial weights on fit and valid part together, for as many epochs as were kept,
    each network of a `PerOutput` for its own.

    So everything but the test part trains, as where a paper has no valid part, and nothing is chosen on what trained.
    The curves are those of `fit`; after_epoch also takes the later records, which say `refit` and have no score. The
    checkpoint of `fit` stays when it is done. The rates of a schedule are those of all the epochs.
    """
    whole = session.run.protocol.folds[fold].joined()
    if summary := solvable(session, space, architecture):
        parts = session.run.protocol.folds[fold]
        return _solved(solve(session, summary, settings, fold, [parts], whole), after_epoch)
    first = fit(session, space, architecture, settings, fold, seed, after_epoch, checkpoint, keep_checkpoint=True)
    network, data, loss = _begin(session, space, architecture, settings, fold, seed, whole)
    stops = first.stops

    def record(epoch: Epoch) -> Record:
        result = {"epoch": epoch.index, "loss": epoch.loss, "refit": True}
        after_epoch(result)
        return result | ({APART: [-abs(epoch.index - stop) for stop in stops], "score": 0.0} if stops else {})

    _, seconds = optimise(
        network,
        _forward(network),
        loss.fit,
        data,
        session.members(whole.fit),
        replace(settings, warmup=0),
        seed_of(fold, seed),
        record,
        checkpoint and checkpoint.with_suffix(f".refit{checkpoint.suffix}"),
        keep_best="score" if stops else None,
        epochs=max(stops or (first.kept[0]["epoch"],)) + 1,
    )
    return Fitted(network, data, first.curves, first.seconds + seconds)


def _solved(solved: Solved, after_epoch: Callable[[Record], None]) -> Fitted:
    after_epoch(solved.record)
    return Fitted(solved.network, solved.data, ([solved.record],), solved.seconds)


def search_fold(
    session: Session,
    space: SearchSpace,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
    paths: bool = True,
) -> tuple[Supernet, SearchOutcome]:
    """Search a space in a fold; see `search.search`. The test part is not used.

    settings: the run's, or others. after_epoch: takes each epoch's record, with the layer mix and the leading
    architecture's scores on the valid part. paths: score every architecture at the end, even if the strategy does not
    need it.
    """
    parts = session.run.protocol.folds[fold]
    data, valid = session.derived(session.layer(fold), parts, settings), session.members(parts.valid)
    fit_part = session.members(parts.fit)
    seed_everything(seed, fold, "initial weights")
    dims = data.dim, settings.width or data.dim, len(session.run.outputs)
    made = Supernet(space, *dims, settings.dropout, settings.residual == "every", data.states)
    supernet = made.to(session.device)
    if settings.normalise != "none":
        supernet.standardise.set(*data.moments(fit_part))
    loss = session.run.losses(settings, fit_part)

    def score(network: Network) -> dict[str, float]:
        return valid_scores(session, network, data, valid, loss.held)

    def record(epoch: Record) -> Record:
        leader = epoch["architecture"]
        more = {"valid": score(supernet.discrete(Architecture.of(leader)))} if leader else {}
        more |= session.mix(supernet)
        after_epoch(epoch | more)
        return more

    outcome = search(
        supernet,
        loss.fit,
        data,
        fit_part,
        settings,
        seed_of(fold, seed),
        record,
        valid,
        score if paths or settings.strategy == "single-path" else None,
        checkpoint,
    )
    return supernet, outcome


def _apart(session: Session, network: Network, data: Data, valid: Tensor, loss: Loss) -> Record:
    """How each network of a `PerOutput` does on the valid part; for any other network nothing.

    Real-valued tasks have losses that are means over the outputs: with 0 for all others, what changes is one's own.
    """
    if not isinstance(network, PerOutput) or session.run.task.classes is not None:
        return {}
    outputs_BO = outputs(network, data, valid)
    alone_OBO = outputs_BO * torch.eye(outputs_BO.shape[1], device=outputs_BO.device)[:, None]
    return {APART: [-float(loss(alone_BO, data.targets_U[valid])) for alone_BO in alone_OBO]}


def valid_scores(session: Session, network: Network, data: Data, valid: Tensor, loss: Loss) -> dict[str, float]:
    """Loss and metrics on the valid part; `network` is in eval mode."""
    outputs_BO = outputs(network, data, valid)
    value = float(loss(outputs_BO, data.targets_U[valid]))
    return {"loss": value, **session.metrics(session.run.task.predict(outputs_BO), valid)}
