"""The card of a model: README.md, with the hub's metadata before the text."""

from __future__ import annotations

import json
import shlex

from bas.encoders import is_own
from bas.models.description import Description
from bas.report.format import counted, encoder_name, ends, spread
from bas.search.ensemble import made_of
from bas.util.markdown import bullets, markdown_table, paragraph, section


def card(of: Description) -> str:
    """A page for people, whose head the Hugging Face hub reads."""
    honest, encoder = of.honest, of.encoder
    shown, file = encoder_name(encoder.name), is_own(encoder.name)
    states = f"state {of.layers[0]}" if len(of.layers) == 1 else f"states {', '.join(map(str, of.layers))}"
    own = ", and has no score of its own" if honest.folds > 1 else ""
    return "\n".join(
        [
            *_head(of),
            "",
            section(1, of.name),
            "",
            paragraph(
                f"Predicts {of.task} ({', '.join(_outputs(of))}) from speech: {states} of the "
                f"frozen encoder {shown}, and on that "
                f"{_architecture(of)}. Made by bas from {of.trained['corpus']}."
            ),
            "",
            section(2, "Use"),
            "",
            "```sh",
            f"bas predict FOLDER recording.wav{f' --encoder {shlex.quote(shown)}' if file else ''}",
            "```",
            "",
            "```python",
            "import bas",
            "",
            f'model = bas.load("FOLDER", encoder={json.dumps(shown)})' if file else 'model = bas.load("FOLDER")',
            'print(model.predict("recording.wav"))',
            "```",
            "",
            section(2, "How good it is"),
            "",
            paragraph(
                f"This model was fitted on all {of.trained['utterances']:,} utterances that the folds of the "
                f"comparison train on{own}. Below is that of models of the same procedure, each "
                f"tested on values of {honest.unit} that it was not trained on: {honest.folds} folds, "
                f"{counted(honest.seeds, 'seed')}, {honest.utterances:,} utterances of {honest.units} units "
                f"({honest.unit}); protocol {honest.protocol.description}."
            ),
            "",
            *markdown_table(["metric", "mean over seeds"], [[n, spread(v)] for n, v in honest.metrics.items()]),
            "",
            *bullets(
                [
                    f"{honest.headline}, 95 % interval for other units ({honest.unit}): {ends(honest.interval)}.",
                    *_calibrated(of),
                    *(f"Mark of the split: {mark}." for mark in honest.protocol.marks),
                    *(f"Of the split: {note}." for note in honest.protocol.notes),
                    f"Recordings of {of.trained['corpus']} itself come out too good: it was trained on them.",
                ]
            ),
            "",
            section(2, "What it was made of"),
            "",
            *bullets(
                [
                    f"Corpus: {of.trained['corpus']}, {of.trained['utterances']:,} utterances of "
                    f"{of.trained['units']} units ({honest.unit}), {of.shortest:.1f} to {of.longest:.1f} s long; "
                    "longer speech is cut into windows.",
                    *_noted(of),
                    *_unheard(of),
                    f"Encoder: {shown}, revision {encoder.revision}, {encoder.precision}.",
                    *_own_file(of),
                    *_size(of),
                    f"Run {honest.run}, row {honest.row}, seed {of.trained['seed']}; "
                    f"bas {of.trained['versions']['bas']}.",
                    *(f"Licence of the {part}: {text}" for part, text in of.license.items()),
                ]
            ),
            "",
        ]
    )


def _outputs(of: Description) -> list[str]:
    """Names, and of numbers the ranges in which the training had them."""
    ranges = [f" from {low:g} to {high:g}" for low, high in of.ranges] or [""] * len(of.outputs)
    return [f"{name}{limits}" for name, limits in zip(of.outputs, ranges, strict=True)]


def _architecture(of: Description) -> str:
    """Of what the model is made, with weights where there are several."""
    if not of.members:
        return "a linear model of the mean frame"
    return ("an ensemble: " if len(of.members) > 1 else "") + made_of(of.members)


def _noted(of: Description) -> list[str]:
    """What the corpus's reader says of its labels and recordings."""
    note = of.trained.get("note")  # models of bas 0.8 have none
    return [f"Of the corpus: {note}."] if note else []


def _unheard(of: Description) -> list[str]:
    """What the run has tested and no fold has trained on."""
    count = of.trained["unheard"]
    return [f"{count:,} utterances of the test part it was not trained on."] if count else []


def _size(of: Description) -> list[str]:
    """What the network costs; the encoder, which costs far more, is not loaded by an export."""
    if of.size is None:
        return []
    return [f"Network on the encoder's states: {of.size}."]


def _own_file(of: Description) -> list[str]:
    """Where the encoder is a Python file, that it is no part of the folder."""
    if not is_own(of.encoder.name):
        return []
    return ["The encoder is a Python file, which is not in this folder: ask the model's maker for it, and read it."]


def _calibrated(of: Description) -> list[str]:
    if of.calibration is None:
        return []
    return [_log_loss(of), *_shifted(of)]


def _shifted(of: Description) -> list[str]:
    """What class weights do to probabilities."""
    if of.trained["settings"].get("class_weights", "none") == "none":
        return []
    return [
        "It was trained with class weights, as if all classes were equally frequent: its probabilities are of such "
        "speech, too high for rare classes, and a temperature does not undo that."
    ]


def _log_loss(of: Description) -> str:
    assert of.calibration is not None
    before, after = of.calibration.uncalibrated, of.calibration.calibrated
    line = f"On the folds' test parts the log loss is {before.loss:.3f}, the expected calibration error "
    line += f"{100 * before.error:.1f} points"
    if after is None:
        return f"{line}. No temperature: with one fold there is no other to fit it on."
    line += (
        f"; with a temperature, that of each fold fitted on the others, {after.loss:.3f} and {100 * after.error:.1f}"
    )
    if of.temperature == 1:
        return f"{line}: no gain, so logits are taken as they are."
    return f"{line}. Logits are divided by {of.temperature:.2f}, fitted on all folds."


def _head(of: Description) -> list[str]:
    """The metadata, as YAML; JSON's texts are YAML's too."""
    metrics = [
        {"type": name.lower(), "name": name, "value": round(value.mean, 4)} for name, value in of.honest.metrics.items()
    ]
    index = {
        "name": of.name,
        "results": [
            {
                "task": {"type": "audio-classification", "name": of.task},
                "dataset": {"type": of.trained["corpus"], "name": of.trained["corpus"]},
                "metrics": metrics,
            }
        ],
    }
    lines = [
        "---",
        "library_name: bas",
        "pipeline_tag: audio-classification",
        f"tags: [bas, speech, {json.dumps(of.task)}]",
    ]
    if of.encoder.revision and not of.encoder.revision.startswith("sha256:") and not is_own(of.encoder.name):
        lines.append(f"base_model: {json.dumps(of.encoder.name)}")
    return [*lines, f"model-index: {json.dumps([index], ensure_ascii=False)}", "---"]
