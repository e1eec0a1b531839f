"""Search-space files: a user's Python file, or one of `search_spaces/`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bas.errors import UserError
from bas.networks.network import State
from bas.space import Choices, SearchSpace
from bas.util.reading import read_text

MOST_STATES = 9
"""Odd, so that the middle one is among them. Each has linear models in a race, which take their time."""


@dataclass(frozen=True)
class SpaceFile:
    """The contents of a search-space file when it was read."""

    name: str
    path: Path
    source: str
    space: SearchSpace
    task: Any  # bas.tasks.Task, or None for emotion recognition
    digest: str  # a short hash of the file's text, and of the user's modules that it imports: a changed block makes
    #   another search
    baselines: Mapping[str, SearchSpace] | None = None  # None: those of bas.runs.baselines


def shipped() -> dict[str, Path]:
    """The files of `search_spaces/` by name."""
    package = importlib.util.find_spec("search_spaces")
    folders = (package.submodule_search_locations or []) if package else []
    return {p.stem: p for d in folders for p in sorted(Path(d).glob("*.py")) if p.stem != "__init__"}


def load_space(name_or_path: str) -> SpaceFile:
    """Read a space by the name of a shipped file (`ser_bas4`) or by the path of any Python file.

    Raises UserError if there is no such file, it cannot be imported, or it does not define `space`.
    """
    path = shipped().get(name_or_path, Path(name_or_path).expanduser())
    if path.suffix != ".py" or not path.exists():
        raise UserError(f"search space {name_or_path!r}: no such file; shipped: {', '.join(shipped())}; or a .py path")
    try:
        source = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    module = _run(source, path)
    space = getattr(module, "space", None)
    if not isinstance(space, SearchSpace):
        raise UserError(f"{path}: defines no `space = SearchSpace(...)`")
    if space.each_output:
        raise UserError(f"{path}: space: each_output is for baselines; a search has one network for all outputs")
    baselines = getattr(module, "baselines", None)
    if baselines is not None:
        sound = isinstance(baselines, Mapping) and baselines
        if not sound or not all(isinstance(b, SearchSpace) and b.size == 1 for b in baselines.values()):
            raise UserError(f"{path}: baselines: must be names with a SearchSpace of one architecture each")
        for name in baselines:
            if not isinstance(name, str) or not re.fullmatch(r"\w[\w+,. -]*", name):
                raise UserError(f"{path}: baselines: {name!r} must be of letters, digits, blanks and +,.-_ alone")
        if len({name.replace(" ", "-") for name in baselines}) < len(baselines):
            raise UserError(f"{path}: baselines: two names are alike but for blanks and hyphens")
    task, digest = getattr(module, "task", None), digest_of(source, _imports(source))
    return SpaceFile(path.stem, path.resolve(), source, space, task, digest, baselines)


def over_states(file: SpaceFile, layers: Sequence[int]) -> SpaceFile:
    """The file with one part more to search: which of the stored states a network reads.

    layers: the numbers of these states. The middle one of them is the first candidate, and the others follow by their
    distance from it: what is tied goes to the first. Of more than MOST_STATES so many are candidates, evenly.
    """
    evenly = np.linspace(0, len(layers) - 1, min(len(layers), MOST_STATES))
    places = sorted({int(place + 0.5) for place in evenly})  # a half goes up, as the middle of an even number does
    places.sort(key=lambda place: abs(place - len(layers) // 2))
    state: Choices = {f"state {layers[place]}": partial(State, place, len(layers)) for place in places}
    return replace(file, space=replace(file.space, state=state))


def digest_of(text: str, modules: Iterable[str] = ()) -> str:
    """A short hash of a text, and of the sources of these modules and of all that they import in turn.

    Modules of `bas` (whose version a run knows), of Python and of installed packages are left out.
    """
    installed = tuple(str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    sources: dict[str, str] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in sources or name.partition(".")[0] == "bas" or not file or not file.endswith(".py"):
            continue
        if not file.startswith(installed):
            sources[name] = Path(file).read_text(encoding="utf-8", errors="replace")
            queue.extend(_imports(sources[name], name.rpartition(".")[0]))
    return hashlib.sha256("\0".join([text, *(sources[name] for name in sorted(sources))]).encode()).hexdigest()[:12]


def _imports(source: str, package: str = "") -> Iterator[str]:
    """The names of the modules that a source may import, with the folders above them."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _run(source: str, path: Path) -> ModuleType:
    # The module's name does not depend on the folder, so neither does a signature. The text itself is run, because
    # Python's bytecode cache mistakes a file that was edited twice within a second for the older version.
    module = ModuleType(f"search_spaces.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be imported: {type(error).__name__}: {reason}") from error
    return module
