"""An experiment resolved for a verb: the settings over their preset, and the file that repeats a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from bas import __version__
from bas.errors import UserError
from bas.experiment.keys import OWN, READ_SETTINGS, SEVERAL, Experiment, keys_of
from bas.experiment.read import values_of
from bas.training import tuning
from bas.training.settings import OF_ROWS, PRESETS, RACES, Settings
from bas.training.tuning import Tuning
from bas.util.files import write_text

FILE = "experiment.toml"


def settings_of(experiment: Experiment, verb: str) -> Settings:
    """The preset with the settings that the verb reads; raises UserError for values that do not go together."""
    own = OWN.get((verb, experiment.preset), {})
    if experiment.settings.get("strategy", "race") not in RACES:
        own = {name: value for name, value in own.items() if name not in ("budget", "ensemble")}
    own = {**own, **{name: value for name, value in OF_ROWS.items() if name not in READ_SETTINGS[verb]}}
    read = {name: value for name, value in experiment.settings.items() if name in READ_SETTINGS[verb]}
    return replace(PRESETS[experiment.preset], **{**own, **read})


def tuning_of(experiment: Experiment) -> Tuning:
    """The numbers of a fine-tuning; raises UserError for values that do not go together."""
    if experiment.preset not in tuning.PRESETS:
        raise UserError(f"preset {experiment.preset!r}: of dynamics must be one of {', '.join(tuning.PRESETS)}")
    return replace(tuning.PRESETS[experiment.preset], **experiment.dynamics.settings)


def write_experiment(folder: Path, verb: str, experiment: Experiment) -> None:
    """Write what the verb reads to experiment.toml in its folder: `bas VERB FOLDER/experiment.toml` repeats the run."""
    values = values_of(experiment)
    tables: dict[str, Any] = {}
    for name in keys_of(verb):
        if name in values and (values[name] is not None or "settings." in name):
            *path, last = name.split(".")
            table = tables
            for part in path:
                table = table.setdefault(part, {})
            table[last] = _toml(name, values[name])
    command = "protocol cost" if verb == "cost" else verb
    heading = f"# bas {__version__}: `bas {command} {folder}/{FILE}` repeats this run.\n"
    write_text(folder / FILE, heading + tomli_w.dumps(tables))


def _toml(name: str, value: Any) -> Any:
    """A value as TOML has it."""
    if value is None:
        return "none"
    if name in SEVERAL and len(value) == 1:
        return value[0]
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
