"""A job is done by who has claimed it, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bas.runs.claimed import claiming, do_claimed, result_path
from bas.runs.plan import Job, Kind
from bas.util.claims import LostError, Owner

JOB = Job(Kind.LINEAR, "logistic regression", 0, 0)


def test_a_job_is_done_unless_another_has_it_or_it_has_a_result(tmp_path: Path) -> None:
    done: list[Any] = []

    def work(session: Any, job: Job) -> None:
        assert list((tmp_path / "claims").iterdir()), "while it works"
        done.append((session, job))
        result_path(tmp_path, job).parent.mkdir()
        result_path(tmp_path, job).write_text("{}")

    (tmp_path / "claims").mkdir()
    other = tmp_path / "claims" / f"{JOB.name}.0.claim"
    other.write_text(Owner("far", "0123ab", 7, "9").line(0))
    assert do_claimed(tmp_path, work, "session", JOB) is False
    with claiming(tmp_path, [JOB]) as (mine, others):
        assert (mine, others) == ([], [JOB])
    assert not done
    other.unlink()
    assert do_claimed(tmp_path, work, "session", JOB) is True
    assert do_claimed(tmp_path, work, "session", JOB) is True
    assert done == [("session", JOB)]
    assert not list((tmp_path / "claims").iterdir())


def test_who_loses_a_job_in_the_middle_leaves_it_to_its_heir(tmp_path: Path) -> None:
    def loses(session: Any, job: Job) -> None:
        raise LostError(job.name)

    assert do_claimed(tmp_path, loses, None, JOB) is False
