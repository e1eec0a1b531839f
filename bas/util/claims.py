"""Who does which piece of work in a folder that many hosts share: claims, without file locks and without clocks.

A claim is a file that only one process can make: a link to what it has written already, which fails where the name is
there, on NFS and Lustre too. While the process works, its heart beats: a number in the file rises. Another process that
has seen the same number for STALE_SECONDS of its own clock takes the claim over; on the same machine it sees at once
that a process is gone. The file of another is never replaced: the next generation of the claim is made beside it, which
again only one process can, and an owner that finds a younger generation knows that it has lost.

Whoever was only slow, not dead, may thus do a piece at the same time as its heir. So a piece must be written as a whole
(`bas.util.files.replacing`) and be the same whoever does it: claims spare work, they guard nothing.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from glob import escape
from pathlib import Path

from bas.util.hosts import host, machine, started
from bas.util.temporary import sweep, temporary_of

BEAT_SECONDS = 5.0
STALE_SECONDS = 150.0  # NFS may show what a file was up to 60 seconds ago
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK)
FOLDER = "claims"
SUFFIX = ".claim"


class LostError(Exception):
    """Another process has taken a claim over: this one was taken for dead."""


@dataclass(frozen=True)
class Owner:
    """What the file of a claim says of its process. started: see `hosts.started`; "-" where that is not told."""

    host: str
    machine: str
    process: int
    started: str

    @classmethod
    def here(cls) -> Owner:
        return cls("_".join(host().split()), machine(), os.getpid(), started(os.getpid()) or "-")

    @classmethod
    def of(cls, line: str) -> Owner | None:
        """None of a line that is only begun."""
        words = line.split()
        return cls(words[0], words[1], int(words[2]), words[3]) if len(words) == 5 and words[2].isdecimal() else None

    def line(self, beat: int) -> str:
        """Always as long, so that a beat overwrites the one before."""
        return f"{self.host} {self.machine} {self.process} {self.started} {beat:012}\n"

    @property
    def gone(self) -> bool:
        """Whether the process is known to run no more, which only its own machine can tell."""
        if self.machine != machine():
            return False
        begun = started(self.process)
        return begun is None or (begun != self.started and begun != "" and self.started != "-")

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Claim:
    """A piece of work that is this process's own, until it is released or lost."""

    def __init__(self, stem: Path, generation: int, owner: Owner) -> None:
        self.stem, self.generation, self.owner = stem, generation, owner
        self.lost = False
        self._beats = 0

    def beat(self) -> None:
        """Show that this process lives, and see whether another has taken the claim over."""
        self.lost = self.lost or _path(self.stem, self.generation + 1).exists()
        self._beats += 1
        if self.lost:
            return
        with suppress(OSError):  # a disk that is away for a moment: others wait for STALE_SECONDS
            descriptor = os.open(_path(self.stem, self.generation), os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.pwrite(descriptor, self.owner.line(self._beats).encode(), 0)
            finally:
                os.close(descriptor)

    def release(self) -> None:
        """Give the claim up, with the generations before it; the youngest goes last, for it keeps others out."""
        for generation in range(0 if self.lost else self.generation + 1):
            _path(self.stem, generation).unlink(missing_ok=True)


class Claims:
    """The claims of this process on work in one folder, and what it has seen of those of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._seen: dict[str, tuple[int, str, float]] = {}

    def take(self, name: str) -> Claim | None:
        """The claim of a piece of work, which beats until `HEART.release`; None while another process has it."""
        stem = self.folder / name
        generations = _generations(stem)
        if not generations:
            return self._make(stem, 0)
        try:
            line = _path(stem, generations[-1]).read_text(errors="replace")
        except FileNotFoundError:  # released since
            return None
        now, owner = time.monotonic(), Owner.of(line)
        generation, before, since = self._seen.get(name, (-1, "", now))
        if (generation, before) != (generations[-1], line):
            self._seen[name] = generations[-1], line, now
        elif now - since >= STALE_SECONDS:
            return self._make(stem, generations[-1] + 1)
        return self._make(stem, generations[-1] + 1) if owner and owner.gone else None

    def _make(self, stem: Path, generation: int) -> Claim | None:
        self._seen.pop(stem.name, None)
        claim = Claim(stem, generation, Owner.here())
        try:
            self.folder.mkdir(exist_ok=True)
            with HEART.making:
                if not _make_once(_path(stem, generation), claim.owner.line(0)):
                    return None
        except FileNotFoundError:  # `forget` was at work between the two
            if not self.folder.parent.is_dir():
                raise
            return None
        HEART.hold(claim)
        return claim

    @contextmanager
    def taking(self, name: str) -> Iterator[Claim | None]:
        """`take` for the block, and release."""
        claim = self.take(name)
        try:
            yield claim
        finally:
            if claim:
                HEART.release(claim)

    def owner(self, name: str) -> Owner | None:
        """Who has a claim, dead or alive; None: nobody."""
        generations = _generations(self.folder / name)
        with suppress(FileNotFoundError):
            if generations:
                return Owner.of(_path(self.folder / name, generations[-1]).read_text(errors="replace"))
        return None


def forget(folder: Path, done: Callable[[Path, str], bool]) -> None:
    """Remove the claims on work that is done, in a folder and in those in it.

    done: takes the folder of a piece of work, and its name.
    """
    for claims in [path for path in folder.rglob(FOLDER) if path.is_dir() and not path.is_symlink()]:
        for path in claims.glob(f"*{SUFFIX}"):
            if done(claims.parent, path.name.removesuffix(SUFFIX).rpartition(".")[0]):
                path.unlink(missing_ok=True)
        sweep(claims)
        with suppress(OSError):  # some are left
            claims.rmdir()


@cache
def claims_on(folder: Path) -> Claims:
    """The claims on work in a folder, with what this process has seen of others."""
    return Claims(folder)


class Heart:
    """The thread that beats for all claims of this process; it ends when none is held."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Hold nothing, as a process does that was just begun, or forked: no thread lives on in a child."""
        self._held: set[Claim] = set()
        self.making = threading.Lock()  # the threads of a process have one name for what is not yet made
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hold(self, claim: Claim) -> None:
        with self._lock:
            self._held.add(claim)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def release(self, claim: Claim) -> None:
        with self._lock:
            if claim in self._held:
                self._held.discard(claim)
                claim.release()

    def check(self) -> None:
        """Raise LostError if another process has taken over a claim that is held."""
        for claim in list(self._held):
            if claim.lost:
                raise LostError(claim.stem.name)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                for claim in self._held:
                    claim.beat()


HEART = Heart()
os.register_at_fork(after_in_child=HEART.begin)


def _make_once(path: Path, line: str) -> bool:
    """Make a file that says this from its first moment on, unless it is there."""
    temporary = temporary_of(path)
    try:
        temporary.write_text(line)
        os.link(temporary, path)
    except FileExistsError:
        with suppress(FileNotFoundError):
            return temporary.stat().st_nlink == 2  # NFS may ask twice, and be told of its own link
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with path.open("x") as stream:  # who is killed now leaves an empty file, which is waited for
                stream.write(line)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _path(stem: Path, generation: int) -> Path:
    return stem.with_name(f"{stem.name}.{generation}{SUFFIX}")


def _generations(stem: Path) -> list[int]:
    """The generations of a claim that are there, the oldest first."""
    names = [
        path.name[len(stem.name) + 1 : -len(SUFFIX)] for path in stem.parent.glob(f"{escape(stem.name)}.*{SUFFIX}")
    ]
    return sorted(int(name) for name in names if name.isdecimal())
