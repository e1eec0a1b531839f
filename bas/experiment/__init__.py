"""An experiment: one file, or one mapping, that every verb reads. `keys` declares every key."""

from bas.experiment.keys import KEYS, SEEDS, SHARED, SPACES, Experiment, keys_of
from bas.experiment.read import Source, Text, change, load_experiment, read_experiment, read_texts, require
from bas.experiment.resolve import FILE, settings_of, tuning_of, write_experiment

__all__ = [
    "FILE",
    "KEYS",
    "SEEDS",
    "SHARED",
    "SPACES",
    "Experiment",
    "Source",
    "Text",
    "change",
    "keys_of",
    "load_experiment",
    "read_experiment",
    "read_texts",
    "require",
    "settings_of",
    "tuning_of",
    "write_experiment",
]
