"""The jobs of a run on a cluster: tasks of a scheduler, each of which does `bas.work`. submitit submits them.

Every task does whatever no other does, until all jobs have a result; so one that dies loses its last seconds, and the
scheduler may preempt, end or start tasks at any time. What is watched is results and tasks, not hosts.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bas.begun import work
from bas.errors import EndedError, UserError
from bas.runs.choose import TASKS
from bas.util.progress import bar
from bas.util.terminal import Terminal, say

if TYPE_CHECKING:
    from bas.experiment.keys import ClusterTable

POLL_SECONDS = 1.0
GRACE_SECONDS = {"slurm": 15.0, "local": 1.0}
"""From when a task is seen to have ended until its last word must be there: another host's disk lags."""
LIVES = 3  # so often tasks may die without any job done meanwhile


class Task:
    """What one task does. submitit pickles it; told to make way, or out of time, a task goes back into the queue."""

    def __init__(self, folder: str, workers: int | None, memory: float | None) -> None:
        self.folder, self.workers, self.memory = folder, workers, memory

    def __call__(self) -> str | None:
        """None: all jobs have a result. Else what is wrong with the run, in one line: it is so for all tasks.

        What is wrong with this task, or its machine, is raised: another task takes its place.
        """
        try:
            work(self.folder, workers=self.workers, memory=self.memory, console=Terminal(soft_wrap=True))
        except EndedError:
            raise
        except UserError as error:
            return str(error)
        return None

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


Expected = Callable[[], tuple[Sequence[Path], bool]]
"""The results of a run's jobs as far as they can be told now, and whether these are all."""


def carry_out(folder: Path, of: ClusterTable, expected: Expected, memory: float | None, console: Console) -> None:
    """Have all jobs of a run done, and return when they have results.

    Whoever stops it (Ctrl-C) stops its tasks; the same command goes on. Raises UserError where submitit or the
    scheduler is missing, where a task refuses the run, and where tasks die again and again.
    """
    results, every = expected()
    missing = _missing(results)
    if every and not missing:
        return
    count = min(of.tasks, max(missing, 1))
    tasks = Tasks(folder, of, memory)
    tasks.submit(count)
    say(console, f"{of.kind}: {count} tasks; their logs: {tasks.folder}")
    lives, lost, made = LIVES, 0, len(results) - missing
    with bar(console, "jobs") as progress:
        shown = progress.add_task("jobs", total=len(results), completed=made)
        try:
            while True:
                died, finished = tasks.ended()
                results, _ = expected()
                before, made = made, len(results) - _missing(results)
                progress.update(shown, total=len(results), completed=made)
                if finished:
                    tasks.wait()
                    return
                lives = LIVES if made > before else lives - bool(died)
                if lives <= 0:
                    raise UserError(f"{folder}: tasks die and do nothing; the last: {died[-1]}")
                for words in died:
                    say(console, f"a task died, another takes its place: {words}")
                lost += len(died)
                if lost and _replaced(tasks, lost):
                    lost = 0
                time.sleep(POLL_SECONDS)
        finally:
            tasks.cancel()


def _replaced(tasks: Tasks, lost: int) -> bool:
    """Whether so many new tasks could be submitted; while others work, a scheduler that is away is asked again."""
    try:
        tasks.submit(lost)
    except UserError:
        if not tasks.running:
            raise
        return False
    return True


def _missing(results: Sequence[Path]) -> int:
    """How many results are not there."""
    there = {path for folder in {one.parent for one in results} for path in folder.glob("*.json")}
    return sum(path not in there for path in results)


class Tasks:
    """The tasks of one call."""

    def __init__(self, folder: Path, of: ClusterTable, memory: float | None) -> None:
        """Raises UserError where submitit or the scheduler is missing."""
        try:
            import submitit
        except ImportError:
            raise UserError(f"cluster.kind={of.kind}: needs submitit: pip install 'bas[slurm]'") from None
        (folder / TASKS).mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder / TASKS))
        self.task = Task(str(folder), None if of.gpus else of.cores, memory)
        try:
            self.executor = submitit.AutoExecutor(self.folder, cluster=of.kind)
        except RuntimeError as error:  # no sbatch here
            raise UserError(f"cluster.kind={of.kind}: {error}") from None
        slurm: dict[str, Any] = {
            "slurm_partition": of.partition,
            "slurm_array_parallelism": of.tasks,
            "slurm_additional_parameters": dict(of.options or {}),
        }
        asked = {"timeout_min": of.minutes, "cpus_per_task": of.cores, "mem_gb": of.memory, "gpus_per_node": of.gpus}
        given = {name: value for name, value in (asked | slurm).items() if value}
        self.executor.update_parameters(name=f"bas-{folder.name}", **given)
        self.kind = str(of.kind)
        self.running: list[Any] = []
        self.absent: dict[str, float] = {}

    def submit(self, count: int) -> None:
        """Raises UserError for what the scheduler refuses."""
        try:
            with _errors_into(self.folder / "local.log", self.kind == "local"), self.executor.batch():
                made = [self.executor.submit(self.task) for _ in range(count)]
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            # submitit raises its own kinds, with what sbatch said on several lines.
            raise UserError(f"cluster.kind={self.kind}: not submitted: {' '.join(str(error).split())}") from error
        self.running += made

    def ended(self) -> tuple[list[str], bool]:
        """The last words of tasks that died, and whether one has seen all jobs done. Raises UserError for a refusal."""
        alive, died = self._alive(), list[str]()
        for job in list(self.running):
            if job.paths.result_pickle.exists():
                self.running.remove(job)
                error = job.exception()
                if error is not None:
                    died.append(f"{_last_line(str(error))} ({job.paths.stderr})")
                elif (refusal := job.result()) is None:
                    return died, True
                else:
                    raise UserError(refusal)
            elif job.job_id in alive:
                self.absent.pop(job.job_id, None)
            elif time.monotonic() - self.absent.setdefault(job.job_id, time.monotonic()) > GRACE_SECONDS[self.kind]:
                self.running.remove(job)
                job.cancel(check=False)  # should it not be so
                died.append(f"it was ended ({job.paths.stderr})")
        return died, False

    def _alive(self) -> set[str]:
        """The tasks that run or wait. Of SLURM by squeue: sacct needs a data base, which not every cluster has."""
        every = {job.job_id for job in self.running}
        if self.kind != "slurm":
            return {job.job_id for job in self.running if not job.done()}
        command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i"]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.SubprocessError):  # the controller is away
            return every
        return every & set(asked.stdout.split())

    def wait(self) -> None:
        """Wait until all have seen that nothing is left, or for a while."""
        end = time.monotonic() + max(GRACE_SECONDS.values())
        while self.running and time.monotonic() < end:
            self.running = [job for job in self.running if not job.paths.result_pickle.exists()]
            time.sleep(0.1)

    def cancel(self) -> None:
        for job in self.running:
            job.cancel(check=False)


@contextmanager
def _errors_into(path: Path, asked: bool) -> Iterator[None]:
    """Let what is started in the block write its errors into a file: submitit's own process of a local task says a
    traceback where it is interrupted."""
    if not asked:
        yield
        return
    before, into = os.dup(2), os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
    try:
        os.dup2(into, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(into)


def _last_line(error: str) -> str:
    """What a task raised, of the trace that submitit wraps it in."""
    trace = error.partition("-" * 10)[2].rpartition("-" * 10)[0] or error
    lines = [line.strip() for line in trace.splitlines() if line.strip(" -")]
    return lines[-1] if lines else "it failed"
