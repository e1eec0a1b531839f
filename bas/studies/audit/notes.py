"""What stands beside the tables of an audit: verdicts to quote, refusals, and what the columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bas.report.format import ends, over_seeds, points, spread
from bas.report.notes import LEVEL, about, corrected, intervals_line, over_folds, preset_line, verdict_lines
from bas.space import NO_BLOCKS
from bas.stats import MIN_UNITS, Paired, Spread, holm, verdict_sentence
from bas.stats.ranking import NOISE
from bas.studies.audit.results import Audit, Sample, SpaceAudit
from bas.training.settings import PRESETS, Settings, search_settings

ALONE = ", uncorrected"
AS_PAPER, NOT_PAPER = "as in the paper", "not the paper's"
NOTHING = ("undecided", "tie", "no claim")


def whose(settings: Settings) -> str:
    """Under which settings a search or a training was done, and whether they are the paper's."""
    # Of one training: an audit refits no row.
    paper = replace(settings, precision="auto", refit=True) == PRESETS["paper"]
    return f"{preset_line(settings)}, {AS_PAPER if paper else NOT_PAPER}"


def mark_uncorrected(verdicts: Sequence[str], ps: Sequence[float]) -> list[str]:
    """The verdicts of one table, each marked that the number of comparisons there could explain (Holm)."""
    family = [i for i, verdict in enumerate(verdicts) if verdict != "no claim"]
    stay = {i for i, p in zip(family, holm([ps[i] for i in family]), strict=True) if p <= LEVEL}
    return [v if v in NOTHING or i in stay else v + ALONE for i, v in enumerate(verdicts)]


def compared(space: SpaceAudit, reference: str) -> dict[str, Paired]:
    """Every comparison between two systems, by a name for it."""
    pairs = [
        (f"{row.strategy} against {other}", difference)
        for row in space.strategies
        for other, difference in (
            ("random search", row.searched.against_random if row.searched else None),
            (f"the {reference}", row.against_reference),
        )
    ]
    return {name: difference for name, difference in pairs if difference}


def sentences(results: Audit, space: SpaceAudit) -> list[str]:
    """The verdicts on the run's own strategy as sentences to quote; on every strategy where that one is missing."""
    where = f"{results.corpus} under {results.protocol.description}"
    searched = [row for row in space.strategies if row.searched]
    own = [row for row in searched if row.strategy == results.settings.strategy]
    all_of = compared(space, results.reference)
    stay = corrected(all_of.values())
    lines = []
    for row in own or searched:
        name = f"{row.strategy} on {space.space} ({whose(search_settings(results.settings, row.strategy))})"
        for other in ("random search", f"the {results.reference}"):
            difference = all_of.get(f"{row.strategy} against {other}")
            if difference:
                rival = f"{other} at its cost" if other == "random search" else other
                line = verdict_sentence(name, rival, where, results.headline, difference, results.unit)
                if difference.significant and difference not in stay:
                    line += f" Corrected for the {len(all_of)} comparisons of its table, that does not stay."
                lines.append(line)
    return lines


def warnings_of(space: SpaceAudit) -> list[str]:
    """The warnings about the decisions of the searches."""
    return [f"{strategy}: {line}" for strategy, selection in space.decisions.items() for line in selection.warnings]


def _beside(baselines: Mapping[str, Spread]) -> str:
    return ", ".join(f"{name} {spread(row)}" for name, row in baselines.items())


def summary(results: Audit, space: SpaceAudit) -> list[str]:
    """The range of scores in the space, and how well its architectures can be ranked."""
    of, ceiling = space.summary, space.summary.ceiling
    raw = [row.score.mean for row in space.architectures]
    range_ = f"from {points(min(raw))} to {points(max(raw))}"
    if of.worst is not None and of.best is not None:
        range_ = f"from {points(of.worst)} to {points(of.best)} with the noise of training taken out, {range_} with it"
    else:
        range_ += " with the noise of training, which one seed does not show"
    lines = [
        *(
            sample_lines(results, space, space.sample, range_)
            if space.sample
            else [f"The space: {space.size} architectures, mean {results.headline} {points(of.mean)}, {range_}."]
        ),
        f"Beside it: {_beside(space.baselines)}.",
        *(
            f"Under {spec}: mean of the space {points(variant.mean)}; {_beside(variant.baselines)}."
            for spec, variant in space.variants.items()
        ),
    ]
    if ceiling and of.split_half is not None:
        lines.append(
            f"Between architectures the true sd is {points(ceiling.architecture_sd)} points, the noise of one "
            f"training {points(ceiling.noise_sd)}; of the variance of means over {len(results.seeds)} seeds "
            f"{_reliability(space)} is true."
        )
    if not of.ranks:
        return [*lines, refusal(results, space)]
    if ceiling and of.split_half is not None:
        lines.append(
            f"Half of the seeds against the other half: tau {of.split_half:+.2f}. A perfect predictor would reach "
            f"tau {ceiling.tau:+.2f} ({ceiling.low:+.2f} to {ceiling.high:+.2f}): the ceiling of both columns."
        )
    for name, taus in space.learning.items():
        epochs = sorted({taus.index(min(taus)), (len(taus) - 1) // 2, len(taus) - 1})
        each = ", ".join(f"{taus[e]:+.2f} in epoch {e + 1}" for e in epochs)
        lines.append(f"Learning: {name} loss ranks the architectures, trained alone, with tau {each}.")
    return lines


def sample_lines(results: Audit, space: SpaceAudit, sample: Sample, range_: str) -> list[str]:
    """What was drawn, what that leaves open, and what was trained beside it."""
    picked, drawn = len(sample.picked), sample.drawn
    lines = [
        f"A sample: {drawn} architectures of the {space.size:,} of the space that are different networks, drawn at "
        f"random (seed {sample.seed}; a larger sample begins with them). All that is said of the space rests on them "
        "alone.",
        f"Mean {results.headline} of the space: {points(sample.mean.value)} ({ends(sample.mean)} for other samples). "
        f"The sample reaches {range_}.",
        f"With 95 % certainty the truly best of the {drawn}, whichever it is, is among the best "
        f"{100 * sample.best:.2g} % of the space; the best of the space may be better.",
    ]
    if not space.summary.ranks:
        lines.append("The intervals of blocks are for other samples too.")
    if picked:
        lines.append(
            f"Searches picked {picked} architecture{'s' * (picked > 1)} that {'were' if picked > 1 else 'was'} not "
            "drawn: trained alone too, with the seeds that judge a pick, and compared with the sample, but no part of "
            "it, as they were chosen for what they are."
        )
    if any(row.architecture.startswith(NO_BLOCKS) for row in sample.picked):
        lines.append(
            f'What has "{NO_BLOCKS}" is a linear model, solved where the task has classes: a race has all of these for '
            "nothing, random search those that were drawn. A verdict between the two is of that, too."
        )
    if space.summary.ranks:
        lines.append(
            f"Percentile: that among {drawn} of {space.size:,} drawn at random. Its interval, and those of tau and of "
            "blocks, are for other samples too. Regret: behind the best of the sample; below 0 where a search found "
            "better."
        )
    for row in space.strategies:
        random = row.searched.random if row.searched else None
        if random and random.paid >= drawn + 1:
            lines.append(
                f"{row.strategy}: its cost pays for {random.paid:.0f} trainings of random search, which has only the "
                f"{drawn} that were drawn: random search could find better in the space."
            )
    if space.summary.ranks and any((s := row.searched) and s.beliefs and not s.paths for row in space.strategies):
        lines.append("No tau of paths: in a space as large as this, a search does not score the paths of its supernet.")
    return lines


def _reliability(space: SpaceAudit) -> str:
    of = space.summary.ceiling
    assert of is not None, "one seed"
    low, high = (f"{100 * share:.0f}" for share in (of.reliability_low, of.reliability_high))
    return f"{100 * of.reliability:.0f} % (95 % interval {low} to {high})"


def refusal(results: Audit, space: SpaceAudit) -> str:
    """Why there is no percentile, regret or tau, and what would help."""
    of, what = space.summary.ceiling, "Percentile, regret and tau of the strategies are not told"
    if of is None:
        return f"{what}: one seed does not show whether its trainings rank the architectures. Two seeds or more would."
    low, high = (f"{100 * share:.0f}" for share in (of.reliability_low, of.reliability_high))
    line = f"{what}: these trainings do not rank the architectures (reliability {low} to {high} %"
    line += f"; it must surely be above {100 * NOISE:.0f})."
    seeds = f"; there are {len(results.seeds)}"
    if of.enough_seeds:
        return f"{line} If the estimates are right, {of.enough_seeds} seeds would{seeds}."
    if of.reliability:
        return f"{line} More seeds than an audit takes would{seeds}."
    return f"{line} How many seeds would cannot be estimated, as no difference shows{seeds}."


def legend(results: Audit) -> list[str]:
    """Units, seeds, folds, the number of test utterances, and the meaning of the columns."""
    headline, seeds = results.headline, results.seeds
    counted = over_seeds(len(seeds))
    draws = next((s.random.draws for row in results.spaces[0].strategies if (s := row.searched) and s.random), 0)
    lines = [
        f"{headline} in points on {results.tested} test utterances {over_folds(results)} (protocol "
        f"{results.protocol.description}), {counted}; of variants: "
        f"seed {', '.join(map(str, results.variant_seeds))} alone.",
        f"Searches and trainings as planned: {whose(results.settings)}. A strategy and a variant change what their "
        "names say.",
        intervals_line(results),
        *_by_fold(results),
        f'"{ALONE.removeprefix(", ")}": a verdict that the number of comparisons in its table could explain (Holm).',
        f"{headline} of a strategy: the picks of every fold and seed; of one drawn blindly: mean ± sd over "
        "architectures and seeds.",
    ]
    if len(seeds) > 1:
        lines.append(
            "Every pick is judged by a training under another seed, which no search has seen: a search that keeps the "
            "best of several trainings would else be credited with their luck. Random search trains architectures in "
            "random order, takes the lowest valid loss and trains that one again, all at the strategy's multiply-adds "
            f"(mean of {draws} draws)" + ("." if all(of.sample for of in results.spaces) else "; exhaustive tries all.")
        )
        if any(space.sample for space in results.spaces):
            lines.append(
                'Random search draws from the sample, and "all of the sample" tries it all. A verdict against random '
                "search takes the sample as it is: in another, it could find more or less."
            )
        if any(space.sample and space.summary.ranks for space in results.spaces):
            lines.append(
                "Their percentiles are those in the space: the best of n that were drawn beats all others of them, and "
                "is expected to beat n of n + 1 in a large space."
            )
    else:
        lines.append(
            "With one seed there is no other training to judge a pick by: random and exhaustive search, which would "
            "keep the luckiest training, are not judged."
        )
    lines.append(
        "Shrunken: the mean, moved to the mean of the space by the share of its variance that is noise. The largest of "
        "many noisy means is too large; the largest shrunken one is not."
    )
    if any(space.summary.ranks for space in results.spaces):
        lines += [
            "Percentile: of the other architectures, how many the pick beats (50: a blind draw). Regret: points behind "
            "the best architecture, whose mean is shrunken. Both use the trainings of the other seeds alone.",
            "Tau: Kendall's, of a search's scores with the mean accuracy; of paths: one-hot in the trained supernet, "
            "valid loss; of theta: the product of probabilities.",
            f"Intervals of percentile, regret and tau: over {results.folds} folds, for other folds and seeds of the "
            "searches and of the trainings that judge them"
            + (f"; none with fewer than {MIN_UNITS} folds." if results.folds < MIN_UNITS else "."),
        ]
    trained = "all of the sample" if all(space.sample for space in results.spaces) else "every architecture"
    lines.append(f"Cost: multiply-adds of search, selection and retraining, against training {trained}.")
    if any(row.strategy.split("+")[0] == "race" for space in results.spaces for row in space.strategies):
        lines.append("A race is judged by its choice, one architecture trained once: no ensemble of its trainings.")
    if any(space.claims for space in results.spaces):
        lines.append(
            "Claims: an FFN in the first slot minus the other blocks there; in the later slots blocks with "
            f"attention minus an FFN; the simple FFN minus the {results.reference}, good enough where it is "
            f"surely less than {points(results.good_enough)} points behind. Flips: yes, where one confirms and "
            "another rejects; not the same, where one decides and another does not."
        )
    for space in results.spaces:
        name = f"{space.space}: " if len(results.spaces) > 1 else ""
        lines += [
            name + line for line in verdict_lines(results, compared(space, results.reference), space.false_verdicts)
        ]
    return lines + about(results)


def _by_fold(results: Audit) -> list[str]:
    """Where one seed leaves blocks and claims with intervals over folds."""
    planned = {e.units for s in results.spaces for of in s.effects.values() for e in of.effects.values() if e.by_fold}
    variants = [of for space in results.spaces for of in space.variants.values()]
    of_variants = {e.units for v in variants for of in v.effects.values() for e in of.effects.values() if e.by_fold}
    if not planned | of_variants:
        return []
    where = "as planned and of variants" if planned and of_variants else "as planned" if planned else "of variants"
    return [
        f"With one seed ({where}), intervals of blocks and claims are over {min(planned | of_variants)} folds, not "
        f"over {results.unit}s: the differences between folds are all that shows the noise of training."
    ]
