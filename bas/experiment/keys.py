"""Every key of an experiment, declared once: its kind, its default, what it means, which verbs read it, its flag.

The classes are the tables of the file. `KEYS` has each key by its dotted name, made from them: the command line, the
reader of files and the reference in the documentation go by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from bas.corpora import READERS
from bas.corpora.columns import kept
from bas.corpora.labels import SCHEMES, is_table
from bas.experiment.key import Key, key
from bas.training import settings as trainings
from bas.training import tuning
from bas.training.settings import LAYERS, OF_CLASSES, OF_ROWS, PROBED, SEARCH_ONLY

SEARCHES = ("search", "retrain", "compare", "audit", "tune", "cost")
COMPARED = ("search", "retrain", "compare")
STUDIES = ("probe", "words", "shares")
TRAINED = (*SEARCHES, *STUDIES)
SEVERAL: Mapping[str, tuple[str, ...]] = {"features": STUDIES, "layer": ("shares",)}
"""The keys that are lists, with the verbs that take more than one item."""

SEEDS: Mapping[str, int] = {verb: {"audit": 4, "cost": 5}.get(verb, 3) for verb in TRAINED}
PAPERS = ("ser_bas3", "ser_bas4")
SPACES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(SEARCHES, PAPERS),
    **dict.fromkeys(COMPARED, ("ser_wide",)),
    **dict.fromkeys(("audit", "probe", "protocol", "check"), ("ser_bas3",)),
    "words": ("ser_bas3", "speaker_id"),
    "shares": ("emotion_share",),
}
"""What a verb takes unless it is given."""


def spaces_of(verb: str, preset: str) -> tuple[str, ...]:
    """The spaces that a verb takes unless they are given."""
    if (verb, preset) == ("shares", "emotion-shares"):
        return ("emotion_share_paper",)
    return PAPERS if verb in COMPARED and preset == "paper" else SPACES[verb]


READ_SETTINGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(SEARCHES, tuple(trainings.KINDS)),
    # It has audit.strategies, and is about single trainings.
    "audit": tuple(name for name in trainings.KINDS if name not in ("strategy", "ensemble", *OF_ROWS)),
    "tune": tuple(name for name in trainings.KINDS if name not in ("budget", "ensemble", "refit")),
    "cost": tuple(n for n in trainings.KINDS if n == "theta_lr" or n not in (*SEARCH_ONLY, *OF_ROWS)),
    "probe": PROBED,
    "words": tuple(name for name in PROBED if name != "theta_lr"),
    # Nothing is searched, and a layer mix learns at `theta_lr`.
    "shares": tuple(n for n in trainings.KINDS if n == "theta_lr" or n not in (*SEARCH_ONLY, *OF_ROWS, *OF_CLASSES)),
}
"""By verb, the settings of a training that it reads."""

WORDS_CPU = {"stride": 4}
"""The settings of `words` under the preset cpu: that preset's stride of 8 frames would be half a word."""

RACED: Mapping[str, Any] = {"strategy": "race", "committee": 4, "ensemble": 2, "budget": 16}
"""The settings of `search`, `retrain` and `compare` under the preset cpu; see `benchmarks/search.md`."""

OWN: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("words", "cpu"): WORDS_CPU,
    **{(verb, "cpu"): RACED for verb in COMPARED},
}
"""By verb and preset, the settings that are not the preset's."""


CORPUS = ("extract", "import", "dynamics", "corpus", "protocol", "check", *TRAINED)


@dataclass(frozen=True)
class CorpusTable:
    """[corpus]"""

    reader: str | None = key(f"which reader: {', '.join(READERS)}", CORPUS, "--corpus")
    root: str | None = key(
        "the corpus's folder, for manifest the file; like every path, from the working directory", CORPUS, "--root"
    )
    accept_truncated: bool = key(
        "take recordings that break off as far as they go; default: skip and list them",
        ("extract", "import", "dynamics", "protocol", "check"),
        "--accept-truncated",
        default=False,
    )
    map: Mapping[str, str] | None = key(
        "of manifest and audformat: columns of other names, by field, such as label=mood,speaker=who; a store keeps it",
        CORPUS,
        "--map",
        metavar="FIELD=COLUMN,...",
    )
    keep: tuple[str, ...] = key(
        "columns of your own to keep, for a task or a split that names them: of the table of manifest and audformat, "
        "or of that of --labels; a store keeps those that it was made with",
        CORPUS,
        "--keep",
        metavar="COLUMN",
        default=(),
    )
    where: tuple[str, ...] = key(
        "of the corpus only what has these values, such as language=en, or label=angry|happy; a field, or a "
        "column of your own; where labels are mapped, theirs; without it a store's own selection stays",
        CORPUS,
        "--where",
        metavar="FIELD=VALUE",
        default=(),
    )


@dataclass(frozen=True)
class EncoderTable:
    """[encoder]"""

    name: str | None = key(
        "a hub name, a local model folder, bas-hubert-nano (in this package), log-mel, or a class in a Python file, "
        "my_encoder.py or my_encoder.py:Class; of import: any name",
        ("extract", "import", "dynamics", *TRAINED),
        "--encoder",
    )
    revision: str | None = key("the hub's revision; default: its newest", ("extract", "dynamics"), "--revision")
    real_length: bool = key(
        "Whisper: the recording, not 30 s; not exact, and faster",
        ("extract", "dynamics"),
        "--real-length",
        default=False,
    )
    layers: Literal["all"] | tuple[int, ...] = key(
        "hidden states to keep: all, or numbers such as 0,6,12", ("extract",), "--layers", default="all", least=0
    )
    dtype: Literal["float16", "float32"] = key("as stored", ("extract", "import"), "--dtype", default="float16")
    precision: Literal["float32", "bfloat16", "float16"] = key(
        "of the encoder", ("extract",), "--precision", default="float32"
    )
    longest: float | None = key(
        "skip what is longer",
        ("extract",),
        "--longest",
        metavar="SECONDS",
        above_0=True,
    )
    pad_audio: float | None = key(
        "pad each recording with silence to this length; its frames are stored too",
        ("extract",),
        "--pad-audio",
        metavar="SECONDS",
        above_0=True,
    )
    batch_seconds: float | None = key(
        "of audio in a batch; default: by device", ("extract",), "--batch-seconds", metavar="SECONDS", above_0=True
    )
    source: str | None = key(
        "arrays of features: a folder of ID.npy or ID.safetensors, a .safetensors with a tensor an id, or a .h5 or "
        ".hdf5 with a dataset an id; each (frames, width) or (states, frames, width)",
        ("import",),
        "--source",
        metavar="PATH",
    )
    frame_rate: float | None = key(
        "frames a second of these arrays", ("import",), "--frame-rate", metavar="HZ", above_0=True
    )


SPLIT = (*(verb for verb in TRAINED if verb != "cost"), "protocol")


@dataclass(frozen=True)
class ProtocolTable:
    """[protocol]"""

    rule: str | None = key(
        "own, session, speaker:5, speaker:64/20/16, emobox:FOLDER, superb:FOLDER, a protocol's FILE.json, ...; "
        "default: the task's, else the corpus's; of dynamics: speaker:64/20/16, below 30 speakers speaker:5; of words: "
        "of the first task",
        (*SPLIT, "dynamics"),
        "--protocol",
        metavar="RULE",
    )
    seed: int = key("which units share a fold", (*SPLIT, "dynamics"), "--protocol-seed", default=0)
    allow_overlap: tuple[str, ...] = key(
        "allow this field on both sides of a split although the task forbids it; every table is marked",
        (*SPLIT, "check"),
        "--allow-overlap",
        metavar="FIELD",
        default=(),
    )


@dataclass(frozen=True)
class AuditTable:
    """[audit]"""

    strategies: tuple[str, ...] = key(
        "strategies to audit, with settings of their own, such as gumbel+warmup=5; default: all that train a "
        "supernet; where a space has more than 1,024 architectures race and gumbel",
        ("audit",),
        "--strategy",
        metavar="SPEC",
        default=(),
    )
    sample: int | None = key(
        "train so many architectures of a larger space, drawn at random; default: all, 300 at most",
        ("audit",),
        "--sample",
        metavar="N",
        least=2,
    )
    variants: tuple[str, ...] = key(
        "other settings under which every architecture is trained again, such as residual=every, or none; default: "
        "residual=every, and the other optimiser",
        ("audit",),
        "--variant",
        metavar="SPEC",
        default=(),
    )


@dataclass(frozen=True)
class TuneTable:
    """[tune]"""

    trials: int = key("in every fold, for every space", ("tune",), "--trials", default=40, least=1)
    choose: Literal["blocks", "search"] = key(
        "who chooses the blocks: blocks (Optuna, beside the settings) or search (the search in every trial, tuned)",
        ("tune",),
        "--tune",
        default="blocks",
    )


@dataclass(frozen=True)
class ProbeTable:
    """[probe]"""

    percents: tuple[int, ...] = key(
        "of the training part, for the learning curves; without a number: none",
        ("probe",),
        "--percent",
        default=(10, 30),
        above_0=True,
        below=100,
    )


@dataclass(frozen=True)
class WordsTable:
    """[words]"""

    text_encoder: str | None = key(
        "of the BERT family in transformers, a hub name or a folder, taken as trained; or random: untrained, and every "
        "row says so",
        ("words",),
        "--text-encoder",
        metavar="NAME",
    )
    aligner: str | None = key(
        "a CTC model, by hub name or folder, for utterances with a text and no word times; default: pseudo-segments",
        ("words",),
        "--aligner",
        metavar="MODEL",
    )
    shown: tuple[str, ...] = key(
        "show the neighbours of these words; default: of frequent ones", ("words",), "--word", default=()
    )


@dataclass(frozen=True)
class SharesTable:
    """[shares]"""

    metadata: tuple[str, ...] = key(
        "the first store also with this beside its frames, one-hot: some of sex, language, speaker",
        ("shares",),
        "--metadata",
        metavar="FIELD",
        default=(),
    )


@dataclass(frozen=True)
class CostTable:
    """[cost]"""

    clean: str | None = key(
        "a rule that leaks nothing; default: the task's, else the corpus's", ("cost",), "--clean", metavar="RULE"
    )
    leaky: str | None = key(
        "a rule that leaks; default: as many folds, drawn over utterances (id:5)", ("cost",), "--leaky", metavar="RULE"
    )


SHARED = (*COMPARED, "audit", "tune")
"""The verbs whose jobs any number of hosts can do, see `bas.begun`."""


@dataclass(frozen=True)
class ClusterTable:
    """[cluster]"""

    kind: Literal["slurm", "local"] | None = key(
        "have the jobs done by tasks of a scheduler, or local: by tasks of this machine, in the same way; default: by "
        "this process and its workers",
        SHARED,
        "--cluster",
    )
    tasks: int = key("how many at once", SHARED, "--tasks", default=4, least=1)
    cores: int = key("of a task, each with a process of one thread", SHARED, default=1, least=1)
    gpus: int = key("of a task, which trains on one", SHARED, default=0, least=0)
    memory: float | None = key("of a task, in GB; default: the scheduler's", SHARED, above_0=True)
    minutes: int = key("a task may take; out of time, it is put into the queue again", SHARED, default=240, least=1)
    partition: str | None = key("of SLURM; default: its own", SHARED)
    options: Mapping[str, str] | None = key("others of sbatch, such as account=speech,constraint=a100", SHARED)


def _settings(module: Any) -> Any:
    """The changes to a preset: one key a setting."""
    return field(default_factory=dict, metadata={"settings": module})


@dataclass(frozen=True)
class DynamicsTable:
    """[dynamics]"""

    rotations: int | None = key(
        "the first N folds alone; default: all", ("dynamics",), "--rotations", metavar="N", least=1
    )
    seed: int = key("of the fine-tuning", ("dynamics",), "--seed", default=0, least=0)
    as_recorded: bool = key(
        "leave the loudness; default: all at -23 LUFS", ("dynamics",), "--as-recorded", default=False
    )
    keep_weights: bool = key(
        "of every checkpoint; default: of the last alone", ("dynamics",), "--keep-weights", default=False
    )
    text_encoder: str | None = key(
        "a text encoder, by hub name or local folder: likeness to vectors of the texts; default: to which text it is",
        ("dynamics",),
        "--text-encoder",
        metavar="NAME",
    )
    settings: Mapping[str, Any] = _settings(tuning)


@dataclass(frozen=True)
class Experiment:
    """The choices of a user: the keys at the top of the file, and its tables. A verb reads some of them."""

    features: tuple[str, ...] = key(
        "a store made by extract, for probe, words and shares several; default: where extract puts that of [corpus] "
        "and [encoder]",
        ("extract", "import", *TRAINED),
        "--features",
        metavar="FOLDER",
        default=(),
    )
    spaces: tuple[str, ...] = key(
        "search spaces, whose task is predicted: shipped names or .py paths; default: the verb's own",
        (*TRAINED, "protocol", "check"),
        "--space",
        default=(),
    )
    layer: tuple[int | Literal["last", "middle", "best", "mix", "search"], ...] = key(
        "a stored state: a number, last, middle, or best (chosen in each fold); mix: all, with learned weights; "
        "search: a part of the space, each network of a search reads its own; for shares one for all stores, or one "
        f"for each; default: {', '.join(f'{v} ({k})' for k, v in LAYERS.items())}",
        (*SEARCHES, "shares"),
        "--layer",
        default=(),
    )
    preset: Literal["paper", "cpu", "decoding-emotions", "word-embeddings", "emotion-shares"] = key(
        "of the settings: paper, that of Fang et al., of dynamics that of its own paper; cpu; or that of the paper of "
        "probe, words or shares",
        (*TRAINED, "dynamics"),
        "--preset",
        default="cpu",
    )
    seeds: int | None = key("how many; default: the verb's own", TRAINED, "--seeds", least=1)
    labels: str | None = key(
        f"map them to a common scheme, {' or '.join(SCHEMES)}; or take them of a table with the column id, such as "
        "ages.csv: what it has stands in the corpus's place; default: the corpus's own words",
        (*TRAINED, "dynamics", "corpus", "protocol", "check"),
        "--labels",
    )
    headline: str | None = key(
        "the metric that choices and verdicts go by, one of the task's, such as WA, UA, WF1 or MF1; default: the "
        "corpus's own, else the task's first",
        TRAINED,
        "--headline",
        metavar="METRIC",
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto: cuda where there is one", ("extract", *TRAINED, "dynamics"), "--device", default="auto"
    )
    workers: int | None = key(
        "processes of one thread each, which share a GPU; default: one a core, or one on a GPU",
        TRAINED,
        "--workers",
        least=1,
    )
    memory: float | None = key(
        "that features may take in all processes, else they are streamed; default: half of what is free",
        TRAINED,
        "--memory",
        metavar="GIB",
        above_0=True,
    )
    name: str | None = key(
        "the run's folder under runs/; default: made from features, layer and preset, of dynamics from corpus, encoder "
        "and preset",
        (*TRAINED, "dynamics"),
        "--name",
    )
    corpus: CorpusTable = field(default_factory=CorpusTable)
    encoder: EncoderTable = field(default_factory=EncoderTable)
    protocol: ProtocolTable = field(default_factory=ProtocolTable)
    settings: Mapping[str, Any] = _settings(trainings)
    audit: AuditTable = field(default_factory=AuditTable)
    tune: TuneTable = field(default_factory=TuneTable)
    probe: ProbeTable = field(default_factory=ProbeTable)
    words: WordsTable = field(default_factory=WordsTable)
    shares: SharesTable = field(default_factory=SharesTable)
    cost: CostTable = field(default_factory=CostTable)
    dynamics: DynamicsTable = field(default_factory=DynamicsTable)
    cluster: ClusterTable = field(default_factory=ClusterTable)

    @property
    def columns(self) -> Mapping[str, str]:
        """Of the corpus, as `bas.corpora.open_corpus` takes them; a table of labels has the own columns itself."""
        return {**(self.corpus.map or {}), **({} if is_table(self.labels) else kept(self.corpus.keep))}


def _walk(table: type, prefix: str) -> Iterator[tuple[str, Key]]:
    kinds = get_type_hints(table)
    for one in fields(table):
        name = f"{prefix}{one.name}"
        if is_dataclass(kinds[one.name]):
            yield from _walk(kinds[one.name], f"{name}.")
        elif module := one.metadata.get("settings"):
            for setting, kind in module.KINDS.items():
                readers = tuple(verb for verb, names in READ_SETTINGS.items() if setting in names)
                verbs = ("dynamics",) if module is tuning else readers
                yield f"{name}.{setting}", Key("a setting; default: the preset's or the verb's own", verbs, kind=kind)
        else:
            yield name, replace(one.metadata["key"], kind=kinds[one.name], default=one.default)


KEYS: Mapping[str, Key] = dict(_walk(Experiment, ""))
"""Each key by its dotted name, such as `protocol.rule`."""


def keys_of(verb: str) -> dict[str, Key]:
    """The keys that a verb reads, by their dotted names."""
    return {name: key for name, key in KEYS.items() if verb in key.verbs}


def settings_table(verb: str) -> str:
    """The table with a verb's settings; `--set` may name these without the table."""
    return "dynamics.settings" if verb == "dynamics" else "settings"
