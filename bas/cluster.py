"""The jobs of a run on a cluster: tasks of a scheduler, each of which does `bas.work`. submitit submits them.

Every task does whatever no other does, until all jobs have a result; so one that dies loses its last seconds, and the
scheduler may preempt, end or start tasks at any time. What is watched is results and tasks, not hosts.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bas.begun import work
from bas.errors import UserError
from bas.util.faults import describe
from bas.util.progress import bar
from bas.util.terminal import Terminal, say

if TYPE_CHECKING:
    from bas.experiment.keys import ClusterTable

FOLDER = "cluster"
"""In the run's folder: what submitit writes, and the logs of the tasks."""
POLL_SECONDS = 1.0
GRACE_SECONDS = 15.0  # from when a task is seen to have ended until its last word must be there, on a disk that lags
LIVES = 3  # so many tasks may die without any job done meanwhile


class Task:
    """What one task does. submitit pickles it; told to make way, or out of time, a task goes back into the queue."""

    def __init__(self, folder: str, workers: int | None, memory: float | None) -> None:
        self.folder, self.workers, self.memory = folder, workers, memory

    def __call__(self) -> str | None:
        """None: all jobs have a result. Else what is wrong, in one line; it is wrong for other tasks too."""
        try:
            work(self.folder, workers=self.workers, memory=self.memory, console=Terminal(soft_wrap=True))
        except UserError as error:
            return str(error)
        except Exception as error:
            line = describe(error)
            if line is None:
                raise
            return line
        return None

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def carry_out(folder: Path, of: ClusterTable, jobs: int, memory: float | None, console: Console) -> None:
    """Have all jobs of a run done, and return when they have results. jobs: about how many there are.

    Whoever stops it (Ctrl-C) stops its tasks; the same command goes on. Raises UserError where submitit or the
    scheduler is missing, where a task refuses the run, and where tasks die again and again.
    """
    tasks = Tasks(folder, of, memory)
    say(console, f"{of.kind}: {of.tasks} tasks; their logs: {folder / FOLDER}")
    done, lives = _results(folder), LIVES
    with bar(console, "jobs") as progress:
        shown = progress.add_task("jobs", total=max(jobs, done), completed=done)
        try:
            tasks.submit(of.tasks)
            while True:
                died, finished = tasks.ended()
                before, done = done, _results(folder)
                progress.update(shown, completed=min(done, jobs))
                if finished:
                    progress.update(shown, completed=jobs)
                    return
                lives = LIVES if done > before else lives - len(died)
                if lives <= 0:
                    raise UserError(f"{folder}: tasks die and do nothing; the last: {died[-1]}")
                if died:
                    say(console, f"a task died, another takes its place: {died[-1]}")
                    tasks.submit(len(died))
                time.sleep(POLL_SECONDS)
        finally:
            tasks.cancel()


class Tasks:
    """The tasks of one call."""

    def __init__(self, folder: Path, of: ClusterTable, memory: float | None) -> None:
        """Raises UserError where submitit or the scheduler is missing."""
        try:
            import submitit
        except ImportError:
            raise UserError(f"cluster.kind={of.kind}: needs submitit: pip install 'bas[slurm]'") from None
        self.task = Task(str(folder), None if of.gpus else of.cores, memory)
        try:
            self.executor = submitit.AutoExecutor(folder / FOLDER, cluster=of.kind)
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
        self.kind = of.kind
        self.running: list[Any] = []
        self.absent: dict[str, float] = {}

    def submit(self, count: int) -> None:
        try:
            with self.executor.batch():
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
                    died.append(_last_line(job, str(error)))
                elif (refusal := job.result()) is None:
                    return died, True
                else:
                    raise UserError(refusal)
            elif job.job_id in alive:
                self.absent.pop(job.job_id, None)
            elif time.monotonic() - self.absent.setdefault(job.job_id, time.monotonic()) > GRACE_SECONDS:
                self.running.remove(job)
                died.append(_last_line(job, "it was ended"))
        return died, False

    def _alive(self) -> set[str]:
        """The tasks that run or wait. Of SLURM by squeue: sacct needs a data base, which not every cluster has."""
        every = {job.job_id for job in self.running}
        if self.kind != "slurm":
            return {job.job_id for job in self.running if not job.done()}
        command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i"]
        asked = subprocess.run(command, capture_output=True, text=True)
        return every & set(asked.stdout.split()) if asked.returncode == 0 else every  # the controller is away

    def cancel(self) -> None:
        for job in self.running:
            job.cancel(check=False)


def _last_line(job: Any, otherwise: str) -> str:
    """The last words of a task, and where they are."""
    paths: Sequence[Path] = (job.paths.stderr, job.paths.stdout)
    for path in paths:
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        if words := [line for line in lines if line.strip()]:
            return f"{words[-1].strip()} ({path})"
    return f"{otherwise.strip().splitlines()[-1]} ({paths[0]})"


def _results(folder: Path) -> int:
    """The number of results in a run, and in the runs within it."""
    jobs = [folder / "jobs", *folder.glob("variants/*/jobs")]
    return sum(name.endswith(".json") for one in jobs if one.is_dir() for name in os.listdir(one))
