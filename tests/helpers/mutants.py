"""Faults that the tests must notice; `planting` plants them.

Where a fault no longer applies, the code has changed: plant it where it now belongs. A survivor wants a test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """old, which stands once in `file`, becomes new; then one of `tests` (arguments of pytest) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


COMPARE = "tests/studies/test_compare.py"
SEARCH = "tests/search/test_search.py"
STRATEGIES = "tests/search/test_strategies.py"
CONTRACTS = "tests/testing/test_contracts.py"
EXPORTED = "tests/models/test_exported.py"
PREDICTING = "tests/models/test_predicting.py"
FOLDER = "tests/models/test_model_folder.py"
ONNX = "tests/models/test_onnx.py"
NO_CHOICE = f"{COMPARE} -k no_choice_sees_the_test_part"

MUTANTS = [
    Mutant(
        "a checkpoint is deleted before its job begins",
        "bas/runs/jobs.py",
        "    others = {Kind.LAYER",
        "    checkpoint(session, job).unlink(missing_ok=True)\n    others = {Kind.LAYER",
        f"{COMPARE} -k 'killed or checkpoint'",
    ),
    Mutant(
        "what killed processes left is not swept",
        "bas/util/files.py",
        "for name in filter(TEMPORARY.search, (*folders, *files)):",
        "for name in ():",
        "tests/cli/test_kills.py",
    ),
    Mutant(
        "a trial that was killed early is taken up with what it had drawn",
        "bas/studies/tune/trials.py",
        'trial.system_attrs.get("fixed_params") or trial.params',
        "trial.params",
        "tests/studies/test_tune.py -k parameters_are_written",
    ),
    Mutant(
        "a job that is done is done again",
        "bas/runs/workers.py",
        "todo = [job for job in jobs if not _path(folder, job).exists()]",
        "todo = list(jobs); [_path(folder, job).unlink(missing_ok=True) for job in jobs]",
        f"{COMPARE} -k not_computed_again",
    ),
    Mutant(
        "attention drops its mask",
        "bas/blocks.py",
        "attn_mask=mask_BT[:, None, None, :]",
        "attn_mask=None",
        f"{CONTRACTS} -k 'ser_bas3 and padding'",
    ),
    Mutant(
        "the mean takes padding in",
        "bas/blocks.py",
        "return zero_padding(x_BTD, mask_BT).sum(1) / mask_BT.sum(1, keepdim=True)",
        "return x_BTD.mean(1)",
        f"{CONTRACTS} -k 'ser_bas3 and padding'",
    ),
    Mutant(
        "a convolution sees padding",
        "bas/blocks.py",
        "self.norm(self.over_time(zero_padding(x_BTD, mask_BT).mT)",
        "self.norm(self.over_time(x_BTD.mT)",
        f"{CONTRACTS} -k 'emotion_share and padding'",
    ),
    Mutant(
        "a seed is ignored",
        "bas/training/loop.py",
        "hashlib.sha256(repr(parts).encode())",
        "hashlib.sha256(b'')",
        f"{SEARCH} -k 'seed'",
    ),
    Mutant(
        "a fold's seed is every seed's",
        "bas/training/loop.py",
        "return member * 10_000_000 + seed * 1000 + fold",
        "return member * 10_000_000 + fold",
        f"{SEARCH} -k seed_of_its_own",
    ),
    Mutant(
        "an epoch has the randomness of the one before",
        "bas/training/loop.py",
        'seed_everything(seed, "epoch", epoch)',
        'seed_everything(seed, "epoch", 0)',
        SEARCH,
    ),
    Mutant(
        "early stopping looks at the test part",
        "bas/runs/fit.py",
        "data, valid = session.derived(session.layer(fold), parts, settings), session.members(parts.valid)\n"
        "    seed_everything(seed, fold, *([member]",
        "data, valid = session.derived(session.layer(fold), parts, settings), session.members(parts.test)\n"
        "    seed_everything(seed, fold, *([member]",
        NO_CHOICE,
    ),
    Mutant(
        "a search looks at the test part",
        "bas/runs/fit.py",
        "data, valid = session.derived(session.layer(fold), parts, settings), session.members(parts.valid)\n"
        "    fit_part",
        "data, valid = session.derived(session.layer(fold), parts, settings), session.members(parts.test)\n"
        "    fit_part",
        NO_CHOICE,
    ),
    Mutant(
        "a training learns on the valid part too",
        "bas/runs/fit.py",
        "        session.members(parts.fit),\n        replace(settings, warmup=0)",
        "        session.members(parts.fit + parts.valid),\n        replace(settings, warmup=0)",
        NO_CHOICE,
    ),
    Mutant(
        "the layer is chosen on the test part too",
        "bas/runs/session.py",
        "members = self.members((*parts.fit, *parts.valid))",
        "members = self.members((*parts.fit, *parts.valid, *parts.test))",
        NO_CHOICE,
    ),
    Mutant(
        "the moments are taken over all utterances",
        "bas/runs/fit.py",
        "network.standardise.set(*data.moments(session.members(parts.fit)))",
        "network.standardise.set(*data.moments(session.members(parts.fit + parts.valid + parts.test)))",
        NO_CHOICE,
    ),
    Mutant(
        "speakers are normalised by frames outside fit",
        "bas/training/batches.py",
        "    named = [speakers[u] for u in fit.tolist()]",
        "    fit = torch.arange(len(speakers))\n    named = [speakers[u] for u in fit.tolist()]",
        "tests/runs/test_normalising.py",
    ),
    Mutant(
        "valid and test are swapped",
        "bas/protocols/rules.py",
        "folds.append(Fold(tuple(sorted(fit)), valid, _ids(groups[u] for u in units)))",
        "folds.append(Fold(tuple(sorted(fit)), _ids(groups[u] for u in units), valid))",
        "tests/protocols/test_protocols.py",
    ),
    Mutant(
        "speakers leak across folds",
        "bas/protocols/rules.py",
        "    values = compared(utterances, name)\n    for u in utterances:",
        '    values = compared(utterances, "id")\n    for u in utterances:',
        "tests/protocols/test_protocols.py",
    ),
    Mutant(
        "a leak is let through",
        "bas/protocols/check.py",
        "forbidden = field in task.disjoint",
        "forbidden = False",
        "tests/protocols",
    ),
    Mutant(
        "results of another plan are accepted",
        "bas/runs/start.py",
        "            if old != value:",
        "            if False:",
        f"{COMPARE} -k another_name",
    ),
    Mutant(
        "results of another protocol are accepted",
        "bas/runs/start.py",
        'result.get("protocol") != protocol.hash',
        "False",
        "tests/cli/test_bad_input.py tests/cli/test_marks.py",
    ),
    Mutant(
        "a checkpoint of another split is taken up",
        "bas/training/loop.py",
        'state["of"] != of',
        "False",
        "tests/cli/test_bad_input.py tests/search",
    ),
    Mutant(
        "the temperature is not annealed",
        "bas/training/settings.py",
        "return float(self.tau_start * (self.tau_end / self.tau_start) ** done)",
        "return self.tau_start",
        "tests/training/test_settings.py",
    ),
    Mutant(
        "the temperature reaches no gate",
        "bas/search/gates.py",
        "return (_perturb(theta) / temperature).softmax(0)",
        "return _perturb(theta).softmax(0)",
        SEARCH,
    ),
    Mutant(
        "the Gumbel noise is missing",
        "bas/search/gates.py",
        "    return theta - torch.empty_like(theta).exponential_().clamp_min(torch.finfo(theta.dtype).tiny).log()",
        "    return theta",
        SEARCH,
    ),
    Mutant(
        "the layer mix is frozen",
        "bas/networks/network.py",
        "x_BTLI * self.theta.softmax(0)[:, None]",
        "x_BTLI * self.theta.detach().softmax(0)[:, None]",
        "tests/runs/test_mix.py",
    ),
    Mutant(
        "argmax takes the smallest",
        "bas/networks/supernet.py",
        "m.theta.argmax()",
        "m.theta.argmin()",
        "tests/networks/test_supernet.py",
    ),
    Mutant(
        "one-hot gates let every candidate through",
        "bas/networks/supernet.py",
        "float(n == architecture[name])",
        "float(n == architecture[name]) or 0.01",
        f"{CONTRACTS} -k 'ser_bas3 and discrete'",
    ),
    Mutant(
        "single-path takes the highest loss",
        "bas/search/search.py",
        "    chosen = min(\n",
        "    chosen = max(\n",
        STRATEGIES,
    ),
    Mutant(
        "bilevel moves theta on the training part",
        "bas/search/search.py",
        "held_out=held_out if strategy.held_out else None",
        "held_out=members if strategy.held_out else None",
        STRATEGIES,
    ),
    Mutant(
        "theta does not rest in the warm-up",
        "bas/training/loop.py",
        "if epoch < settings.warmup or held_out is not None:",
        "if held_out is not None:",
        STRATEGIES,
    ),
    Mutant(
        "cost is no matter",
        "bas/search/search.py",
        "loss(outputs_BO, targets_B) + settings.cost_weight * expected",
        "loss(outputs_BO, targets_B)",
        STRATEGIES,
    ),
    Mutant(
        "the last epoch's weights are kept",
        "bas/training/loop.py",
        '    if keep_best:\n        model.load_state_dict(best["model"])',
        '    if keep_best == 0:\n        model.load_state_dict(best["model"])',
        SEARCH,
    ),
    Mutant(
        "weights decay in theta",
        "bas/training/loop.py",
        '"params": theta, "weight_decay": 0.0',
        '"params": theta, "weight_decay": settings.weight_decay',
        SEARCH,
    ),
    Mutant(
        "the linear row takes the worst strength",
        "bas/runs/linear.py",
        "key=lambda strength: (score(strength), -strength)",
        "key=lambda strength: (-score(strength), -strength)",
        "tests/runs/test_linear.py",
    ),
    Mutant(
        "an inner fold holds out utterances of speakers that it trains on",
        "bas/runs/session.py",
        "every = inner.split(targets_U, self._units_of(members), count, classes)",
        "every = inner.split(targets_U, ids, count, classes)",
        "tests/runs/test_committee.py -k held_out_once",
    ),
    Mutant(
        "a committee asks one of its networks",
        "bas/networks/committee.py",
        "for network, weight in pairs]).sum(0)",
        "for network, weight in pairs])[0]",
        "tests/runs/test_committee.py -k mean_of_its_networks",
    ),
    Mutant(
        "a race takes the worst",
        "bas/search/race.py",
        "best = int(np.argmin(of.mean_A))",
        "best = int(np.argmax(of.mean_A))",
        "tests/search/test_race.py -k found_in_nine",
    ),
    Mutant(
        "a race never asks the cheapest again",
        "bas/search/race.py",
        "control = [] if self.solved or 0 in self.diverged else [0]",
        "control: list[int] = []",
        "tests/search/test_race.py -k cheapest_is_asked",
    ),
    Mutant(
        "a finalist of a race that diverged stays one",
        "bas/search/race.py",
        "self.finalists = [a for a in self.finalists if a != architecture]",
        "self.finalists = list(self.finalists)",
        "tests/search/test_race.py -k finalist_that_diverges",
    ),
    Mutant(
        "a race of which every training diverged says nothing",
        "bas/search/race.py",
        "if not set(sound) - self.solved and self.diverged:",
        "if not set(sound) and self.diverged:",
        "tests/search/test_race.py -k where_all_trainings_diverge",
    ),
    Mutant(
        "a finalist of a race was not trained in every inner fold",
        "bas/search/race.py",
        "asked += [(a, r) for r in lacks]",
        "asked += [(a, r) for r in lacks[1:]]",
        "tests/search/test_race.py -k finalists_are_trained",
    ),
    Mutant(
        "linear models count against the budget of a race",
        "bas/search/race.py",
        "return sum(a not in self.solved for a in self.which)",
        "return len(self.which)",
        "tests/search/test_race.py -k linear_models_come_first",
    ),
    Mutant(
        "an ensemble adds what raises the loss",
        "bas/search/ensemble.py",
        "added = losses.index(min(losses))",
        "added = losses.index(max(losses))",
        "tests/search/test_ensemble.py",
    ),
    Mutant(
        "an ensemble forgets its weights",
        "bas/runs/fit.py",
        "Committee([one.network for one in fitted], [member.weight for member in members])",
        "Committee([one.network for one in fitted])",
        "tests/runs/test_raced.py -k takes_its_trainings",
    ),
    Mutant(
        "the row of a race is trained from other initial weights than the race",
        "bas/runs/raced.py",
        "fit(session, space, architecture, settings, fold, seed, after, path, parts, replication)",
        "fit(session, space, architecture, settings, fold, seed, after, path, parts, replication + 100)",
        "tests/runs/test_raced.py -k networks_of_a_committee",
    ),
    Mutant(
        "a linear model takes the regularisation of the highest loss",
        "bas/runs/solved.py",
        "best = min(STRENGTHS, key=lambda strength: (valid[strength]",
        "best = max(STRENGTHS, key=lambda strength: (valid[strength]",
        "tests/runs/test_solved.py -k lowest_held_out_loss",
    ),
    Mutant(
        "the surrogate compares losses of different replications",
        "bas/search/surrogate.py",
        "shift_NR = np.eye(len(names))[replication_N]",
        "shift_NR = np.ones((len(loss_N), 1))",
        "tests/search/test_surrogate.py -k 'changes_nothing or teaches_nothing'",
    ),
    Mutant(
        "unweighted accuracy is weighted",
        "bas/stats/metrics.py",
        "float(np.mean(hits_K[present_K] / support_K[present_K]))",
        "float(hits_K.sum() / support_K.sum())",
        "tests/stats/test_metrics.py",
    ),
    Mutant(
        "utterances are taken for units",
        "bas/stats/sampling.py",
        "    unit_N = _numbered(units_N)",
        "    unit_N = np.arange(n)",
        "tests/stats/test_stats.py tests/stats/test_sampling.py",
    ),
    Mutant(
        "the noise of training is not in the interval",
        "bas/stats/sampling.py",
        "    variance = of_units + shared",
        "    variance = of_units",
        "tests/stats/test_sampling.py",
    ),
    Mutant(
        "what a seed does to a unit alone counts twice",
        "bas/stats/sampling.py",
        "max(0.0, of_trainings - of_cells)",
        "max(0.0, of_trainings)",
        "tests/stats/test_sampling.py",
    ),
    Mutant(
        "the seeds of one fine-tuned encoder are taken for trainings of it",
        "bas/stats/sampling.py",
        "        return repeats_RN if self.retrained and len(repeats_RN) > 1 else None",
        "        return repeats_RN if len(repeats_RN) > 1 else None",
        "tests/stats/test_sampling.py",
    ),
    Mutant(
        "Holm corrects every p for one comparison alone",
        "bas/stats/verdicts.py",
        "(len(ps) - rank) * ps[index]",
        "ps[index]",
        "tests/stats/test_verdicts.py",
    ),
    Mutant(
        "a training on other speakers changes the score of the linear row",
        "bas/runs/results.py",
        "np.concatenate(again, axis=1) if again else None",
        "None",
        "tests/runs/test_linear.py",
    ),
    Mutant(
        "a file may be half written",
        "bas/util/files.py",
        '    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")',
        "    temporary = path",
        f"{SEARCH} tests/features/test_store.py -k 'whole_or_not or kill_while_writing'",
    ),
    Mutant(
        "a flipped bit of a feature is not seen",
        "bas/features/shard.py",
        "    if checksum(states) != crc32:",
        "    if False:",
        "tests/features/test_verify.py",
    ),
    Mutant(
        "a training reads features without comparing them",
        "bas/features/shard.py",
        "        if checksum(block_TD) != self.contents.crc32[row, u]:",
        "        if False:",
        "tests/runs/test_corruption.py -k shard",
    ),
    Mutant(
        "a record is believed whatever its checksum",
        "bas/util/files.py",
        "    if checksum is not None and checksum != _checksum(value):",
        "    if False:",
        "tests/runs/test_corruption.py -k json",
    ),
    Mutant(
        "a checkpoint is believed",
        "bas/training/loop.py",
        "        check_archive(path)",
        "        pass",
        "tests/runs/test_corruption.py -k checkpoint",
    ),
    Mutant(
        "baselines are compared by their names",
        "bas/runs/start.py",
        '        **{f"baseline {name}": _digest(baseline) for name, baseline in run.baselines.items()},\n',
        "",
        "tests/runs/test_folders.py -k baselines",
    ),
    Mutant(
        "an export of a published split trains on its test part",
        "bas/runs/whole.py",
        "folds: tuple[Fold, ...] = (replace(run.protocol.folds[0], test=()),)",
        "folds = (Fold((*run.protocol.folds[0].fit, *run.protocol.folds[0].test), run.protocol.folds[0].valid, ()),)",
        f"{EXPORTED} -k published",
    ),
    Mutant(
        "an export does not see that its run has changed",
        "bas/runs/start.py",
        "        if earlier.get(name) != value and (trains or",
        "        if earlier.get(name) != value and not name and (trains or",
        f"{EXPORTED} -k has_changed",
    ),
    Mutant(
        "an exported linear row averages after the stride",
        "bas/runs/whole.py",
        "return Whole(network, None, (), session.layer(0), 1)",
        "return Whole(network, None, (), session.layer(0), settings.stride)",
        f"{EXPORTED} -k 'recordings and linear or recordings and logistic'",
    ),
    Mutant(
        "states are not rounded as the store rounds them",
        "bas/models/predict.py",
        "stored = states_LTD.to(getattr(torch, self.description.dtype)).cpu()",
        "stored = states_LTD.float().cpu()",
        f"{PREDICTING} -k could_not_hold",
    ),
    Mutant(
        "probabilities are taken without their temperature",
        "bas/models/predict.py",
        "scaled = outputs_O.double().cpu() / self.description.temperature",
        "scaled = outputs_O.double().cpu()",
        f"{PREDICTING} -k temperature",
    ),
    Mutant(
        "a graph is taken without a trial",
        "bas/models/onnx.py",
        "            if not difference <= allowed:",
        "            if False:",
        f"{ONNX} -k no_graph",
    ),
    Mutant(
        "a graph averages the last frames as if they were a whole group",
        "bas/models/onnx.py",
        ".clamp(max=self.stride)",
        ".clamp(min=self.stride, max=self.stride)",
        f"{ONNX} -k rounds",
    ),
    Mutant(
        "a graph keeps the length of its example",
        "bas/blocks.py",
        "return x_BTD.gather(1, place_BQ[..., None].expand(-1, -1, x_BTD.shape[-1]))",
        "return x_BTD.take_along_dim(place_BQ[..., None], 1)",
        f"{ONNX} -k 'LSTM'",
    ),
    Mutant(
        "another space file than the run's gives a model its blocks",
        "bas/models/folder.py",
        "    if wanted != space.digest:",
        "    if not wanted:",
        f"{FOLDER} -k ones_own",
    ),
    Mutant(
        "a block is made of any module that is loaded",
        "bas/models/layout.py",
        "    elif block.module in {module for space in spaces for module in modules(space)}:",
        "    elif block.module in sys.modules:",
        f"{FOLDER} -k only_blocks",
    ),
    Mutant(
        "a table goes on with what was said of other recordings",
        "bas/models/table.py",
        "        if number == 0 and raw != head:",
        "        if number == 0 and raw is None:",
        f"{PREDICTING} -k not_this_tables",
    ),
    Mutant(
        "the answer takes a row that correction takes back",
        "bas/report/answer.py",
        "if of in stay and of.difference > 0]",
        "if of.significant and of.difference > 0]",
        "tests/report/test_answer.py",
    ),
    Mutant(
        "a fold's own temperature is fitted on it",
        "bas/stats/calibration.py",
        "temperature(logits_NO[~here_N], targets_N[~here_N])",
        "temperature(logits_NO[here_N], targets_N[here_N])",
        "tests/stats/test_calibration.py",
    ),
]
