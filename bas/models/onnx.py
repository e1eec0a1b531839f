"""A model as an ONNX graph, for runtimes without Python: its network, or the encoder and the network in one.

Axes: B recordings, N samples, L states, T frames, I width of the features (that of all states side by side), O outputs.

A graph is made on the CPU in float32, and has its file's name only after ONNX Runtime gave with it what the model
itself gives.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.functional import conv1d, pad

import bas
from bas.encoders import is_own
from bas.encoders.base import Graphed
from bas.errors import UserError, first_line
from bas.models import folder as on_disk
from bas.models.description import Description
from bas.models.predict import Model
from bas.networks.network import Standardise
from bas.speech.audio import SAMPLE_RATE
from bas.util.faults import raise_memory
from bas.util.files import replacing

FORMAT = 1
"""The version of inputs, outputs and metadata; it rises when one changes its name or its meaning."""

KEY = "bas"
"""Of the metadata, an object of JSON."""

NAME, WHOLE, SUFFIX = "model.onnx", "with-encoder.onnx", ".onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the outputs, and of the largest where that is above 1
LARGEST = 2**31 - 2**20  # bytes: of one file without others beside it, less what is not weights
BATCHES = ((1, 1), (1, 50), (3, 7), (2, 200))  # recordings and frames of a trial
SECONDS = 10.0  # of the longest trial of an encoder


@dataclass(frozen=True)
class Trial:
    """Inputs of a graph by name, and what the model itself gives for them: outputs and values, `(B, O)`."""

    given: Mapping[str, np.ndarray]
    wanted: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Part:
    """A module that is exported, with an example of its inputs, and the axes of these that may have any length."""

    module: nn.Module
    given: Mapping[str, Tensor]
    axes: Mapping[str, dict[int, Any]]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Graph:
    """Parts, each of which takes what the one before gives, and trials of all of them together.

    longest: seconds of speech that it may be given at once.
    """

    parts: Sequence[Part]
    trials: Sequence[Trial]
    longest: float


class Head(nn.Module):
    """Features `(B, T, I)` and mask `(B, T)` to the network's outputs and values of them, `(B, O)` each."""

    def __init__(self, network: nn.Module, of: Description) -> None:
        super().__init__()
        self.network, self.of = network, of

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs_BO = self.network(features, mask)
        return outputs_BO, self.of.activate(outputs_BO)


class OfStates(nn.Module):
    """States `(L, T, D)` of one wave to what a head gives for them, rounded and averaged as in the training."""

    def __init__(self, head: Head, of: Description) -> None:
        super().__init__()
        self.head, self.stride, self.dtype = head, of.stride, getattr(torch, of.dtype)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        x_TI = states.to(self.dtype).float().transpose(0, 1).flatten(1)
        x_1TI = self._average(x_TI).to(self.dtype).float()[None]
        outputs: tuple[Tensor, Tensor] = self.head(x_1TI, x_1TI.new_ones(x_1TI.shape[:2], dtype=torch.bool))
        return outputs

    def _average(self, x_TI: Tensor) -> Tensor:
        """As `bas.training.batches.average`."""
        if self.stride == 1:
            return x_TI
        # A convolution takes any length. Slices and a reshape make torch's exporter refuse the shortest.
        filled_I1T = pad(x_TI.T[:, None], (0, self.stride - 1))
        sum_TI = conv1d(filled_I1T, x_TI.new_ones(1, 1, self.stride), stride=self.stride)[:, 0].T
        count_T = (x_TI.shape[0] - torch.arange(sum_TI.shape[0]) * self.stride).clamp(max=self.stride)
        average_TI: Tensor = sum_TI / count_T[:, None]
        return average_TI


def check(out: Path) -> None:
    """Raise UserError unless a graph can be made here and written there."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"a graph needs {', '.join(missing)}, which is not installed here: pip install 'bas[onnx]'")
    if out.suffix.lower() != SUFFIX:
        raise UserError(f"--out {out}: must end in {SUFFIX}")
    if out.exists():
        raise UserError(f"--out {out}: is there already; delete it, or name another")


def write(folder: Path, out: Path, with_encoder: bool, encoder: str | None, spaces: Sequence[Path]) -> float:
    """Write the graph of a model's folder as one file, complete or not at all; the largest difference of the trials.

    encoder, spaces: as in `Model.load`. Raises UserError for a model that is no graph of ONNX, one of more bytes than a
    file can have, and a graph that gives other numbers than the model.
    """
    check(out)
    model = Model.load(folder, torch.device("cpu"), encoder, spaces)
    what = _what(model, with_encoder)
    graph = _with_encoder(model) if with_encoder else _network(model)
    if sum(p.nbytes for part in graph.parts for p in part.module.parameters()) > LARGEST:
        raise UserError(f"{folder}: {what} is of more than 2 GB, which one ONNX file cannot hold")
    about = {"model": on_disk.identity(folder), **_about(model, graph.longest)}
    try:
        content = _serialised(graph, model.description, about)
        difference = max(_differences(content, graph.trials))
    except UserError as error:
        raise UserError(f"{folder}: {what}: {error}") from error
    except Exception as error:  # of torch's exporter, which meets blocks of the user's, and of the runtime
        raise_memory(error)
        why = _cause(error)
        line = f"{folder}: {what}: no ONNX graph can be made of it: {type(why).__name__}: {first_line(why)}"
        raise UserError(line) from error
    with replacing(out) as temporary:
        temporary.write_bytes(content)
    return difference


def _network(model: Model) -> Graph:
    of = model.description
    given = {"features": torch.zeros(2, 7, len(of.layers) * of.encoder.dim), "mask": torch.ones(2, 7).bool()}
    axes = {name: {0: Dim("batch", min=1), 1: Dim("frames", min=1)} for name in given}
    return Graph([Part(Head(model.network, of), given, axes, _outputs(of))], list(_random(model)), of.longest)


def _with_encoder(model: Model) -> Graph:
    of = model.description
    if is_own(of.encoder.name):
        raise UserError(f"--with-encoder: encoder {of.encoder.name} is a Python file; export the network alone")
    encoder = model.encoder
    if of.encoder.precision != "float32":
        why = f"computes in {of.encoder.precision}, a graph in float32"
        raise UserError(f"--with-encoder: encoder {of.encoder.name} {why}; export the network alone")
    assert isinstance(encoder, Graphed), encoder
    longest = of.longest if encoder.window is None else min(of.longest, encoder.window / SAMPLE_RATE)
    wave, states = torch.zeros(1, SAMPLE_RATE), torch.zeros(len(of.layers), 7, of.encoder.dim)
    # Two parts: where one is traced through both, the network's lengths are formulas of samples, of which torch's
    # exporter soon cannot say any more that they hold for all.
    of_wave = Part(
        encoder.graph(of.layers), {"wave": wave}, {"wave": {1: Dim("samples", min=encoder.min_samples)}}, ["states"]
    )
    of_states = Part(
        OfStates(Head(model.network, of), of), {"states": states}, {"states": {1: Dim("frames", min=1)}}, _outputs(of)
    )
    return Graph([of_wave, of_states], list(_noise(model, longest)), longest)


def _outputs(of: Description) -> list[str]:
    return ["outputs", of.values]


def _serialised(graph: Graph, of: Description, about: Mapping[str, Any]) -> bytes:
    """The file's content. about: what a reader must know to feed the graph and to read what it gives."""
    proto, *rest = map(_exported, graph.parts)
    if rest:
        proto = _joined(proto, *rest)
    proto.producer_name, proto.producer_version, proto.graph.name = "bas", bas.__version__, of.name
    proto.metadata_props.add(key=KEY, value=json.dumps(about, ensure_ascii=False))
    content: bytes = proto.SerializeToString()
    return content


def _exported(part: Part) -> Any:
    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            part.module.eval(),
            tuple(part.given.values()),
            input_names=list(part.given),
            output_names=part.outputs,
            dynamic_shapes=tuple(part.axes.values()),
            dynamo=True,
            verbose=False,
        )
    assert made is not None, "with dynamo it is a program"
    return made.model_proto


def _joined(first: Any, second: Any) -> Any:
    """One graph of two; what the first gives, the second takes under the same name."""
    from onnx import compose

    same = [one.name for one in first.graph.output]
    first = compose.add_prefix(first, "encoder.", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(first, second, io_map=[(name, name) for name in same])


def _what(model: Model, with_encoder: bool) -> str:
    """What may be to blame where there is no graph: blocks of the user's own before those of bas."""
    blocks = model.description.network.blocks
    own = [block for block in blocks if block.module != "bas.blocks"]
    named = "network of " + ", ".join(dict.fromkeys(map(str, own or blocks)))
    return f"encoder {model.description.encoder.name} with the {named}" if with_encoder else named


def _about(model: Model, longest: float) -> dict[str, Any]:
    of = model.description
    return {
        "format": FORMAT,
        "bas": bas.__version__,
        "task": of.task,
        "labels": of.outputs,
        "activation": of.activation,
        "temperature": of.temperature,
        **({"ranges": of.ranges} if of.ranges else {}),
        "encoder": of.encoder.to_dict(),
        "layers": of.layers,
        "dtype": of.dtype,
        "stride": of.stride,
        "sample_rate": of.encoder.sample_rate,
        "shortest": of.shortest,
        "longest": longest,  # seconds: longer speech is for windows, which no graph cuts
        "license": dict(of.license),
    }


def _random(model: Model) -> Iterator[Trial]:
    """Features about as large as those of the training; behind a recording's end any numbers."""
    of, rng = model.description, torch.Generator().manual_seed(0)
    width = len(of.layers) * of.encoder.dim
    mean_I, scale_I = torch.zeros(width), torch.ones(width)
    for module in model.network.modules():
        if isinstance(module, Standardise) and len(module.mean_I) == width:
            mean_I, scale_I = module.mean_I, module.scale_I
    for batch, frames in BATCHES:
        x_BTI = mean_I + torch.randn(batch, frames, width, generator=rng) / scale_I
        lengths_B = torch.randint(1, frames + 1, (batch,), generator=rng)
        lengths_B[0] = frames
        mask_BT = torch.arange(frames) < lengths_B[:, None]
        padded_BTI = torch.where(mask_BT[..., None], x_BTI, 1e3 * torch.randn(x_BTI.shape, generator=rng))
        with torch.inference_mode():
            outputs_BO = torch.cat(
                [model.network(x_BTI[b : b + 1, :n], mask_BT[b : b + 1, :n]) for b, n in enumerate(lengths_B)]
            )
        values_BO = np.stack([model.values(outputs_O) for outputs_O in outputs_BO])
        yield Trial({"features": padded_BTI.numpy(), "mask": mask_BT.numpy()}, (outputs_BO.numpy(), values_BO))


def _noise(model: Model, longest: float) -> Iterator[Trial]:
    """Noise of several lengths, from the shortest that there is to `longest` seconds, but not of minutes."""
    encoder, rng = model.encoder, np.random.default_rng(0)
    least = encoder.min_samples
    most = max(least, round(min(longest, SECONDS) * SAMPLE_RATE))
    for samples in sorted({least, (3 * least + most) // 4, (least + most) // 2, most}):
        wave_N = 0.1 * rng.standard_normal(samples).astype(np.float32)
        (states_LTD,) = encoder.encode([encoder.prepare(wave_N)])
        outputs_O = model.outputs(states_LTD[list(model.description.layers)])
        yield Trial({"wave": wave_N[None]}, (outputs_O.numpy()[None], model.values(outputs_O)[None]))


def _differences(content: bytes, trials: Sequence[Trial]) -> Iterator[float]:
    """The largest difference of each trial. Raises UserError for one above TOLERANCE."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    for trial in trials:
        for wanted_BO, found_BO in zip(trial.wanted, session.run(None, dict(trial.given)), strict=True):
            shape = {name: list(value.shape) for name, value in trial.given.items()}
            allowed = TOLERANCE * max(1.0, float(np.abs(wanted_BO).max()))
            if found_BO.shape != wanted_BO.shape:
                raise UserError(
                    f"its graph gives {list(found_BO.shape)} for {shape}, the model {list(wanted_BO.shape)}"
                )
            difference = float(np.abs(found_BO - wanted_BO).max())
            if not difference <= allowed:
                raise UserError(f"its graph is off by {difference:.2g} for {shape}; allowed: {allowed:.2g}")
            yield difference


def _cause(error: BaseException) -> Exception:
    """The first of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else RuntimeError(str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own pages, logged and printed; what they mean for the user is said in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)
