"""`eccos plan --output`: shards on disk, processes and Ray, runs that stop and go on."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shard_jobs
from pocket_pool import write_outcomes_part, write_pool_config
from shard_jobs import AlwaysDie, DieOnce, Fail

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.errors import DataError, InfeasibleError, InputError, NoEligibleModelError
from eccos_core.router import Router
from eccos_core.workflows.large_plan import LargePlan, open_engine
from eccos_core.workflows.large_plan.engine import InThisProcess, ShardEngine
from eccos_core.workflows.large_plan.store import read_arrays
from eccos_core.workflows.plan import plan_batch, read_requests

REQUESTS = 90


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_outcomes_part(tmp_path)
    return Path(write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}"))


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    lines = [json.dumps({"query": f"What is {n} + {n % 7}?", "id": f"r{n}"}) for n in range(REQUESTS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for part in sorted((folder / "plan").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardEngine]:
    support = str(Path(shard_jobs.__file__).parent)  # workers of Ray have no other way to the jobs of these tests
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]))
    made = open_engine(request.param, 2)
    yield made
    made.close()


def test_the_command_plans_as_one_process_does_and_goes_on_where_it_stopped(
    config: Path, requests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "-r", str(requests), "-c", str(config), "-o", str(tmp_path / "out"), "--workers", "1"]
    command += ["--shard-rows", "20", "--json"]
    assert run(app, command) == DONE
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "out" / "summary.json").read_text())
    one = plan_batch(Router.from_yaml(config), read_requests(requests))
    assert told["cost_usd"] == pytest.approx(one.assignment.cost_usd, rel=1e-4)
    assert told["quality"] >= 0.6 - 1e-6
    assert told["forecast_again"] == told["shards"] == 5

    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(REQUESTS)]
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(told["cost_usd"])
    assert sum(row["quality"] for row in rows) / REQUESTS == pytest.approx(told["quality"], rel=1e-6)
    assert {name: sum(row["model"] == name for row in rows) for name in told["calls"]} == told["calls"]
    assert {row["reason"] for row in rows} <= set(told["reasons"])

    forecasts = sorted((tmp_path / "out" / "forecast").iterdir())
    forecasts[2].unlink()  # as if the run had died there
    before = {path: path.stat().st_mtime_ns for path in forecasts if path.exists()}
    assert run(app, command) == DONE
    again = json.loads(capsys.readouterr().out)
    assert again["forecast_again"] == 1
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert (again["cost_usd"], again["calls"]) == (told["cost_usd"], told["calls"])

    lines = requests.read_text().splitlines()
    lines[85] = json.dumps({"query": "Another question?", "id": "new"})
    requests.write_text("\n".join(lines[:86]) + "\n")
    assert run(app, [*command[:-1]]) == DONE
    assert "4 of them forecast by an earlier run" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "out")) == 86


def test_workers_give_the_same_answer(engine: ShardEngine, config: Path, requests: Path, tmp_path: Path) -> None:
    alone = LargePlan(config, requests, tmp_path / "one", InThisProcess(), shard_rows=40).run()
    beside = LargePlan(config, requests, tmp_path / "two", engine, shard_rows=40).run()
    assert (beside.cost_usd, beside.calls, beside.gap) == (alone.cost_usd, alone.calls, alone.gap)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")


def test_the_shard_of_a_dead_worker_is_done_again(engine: ShardEngine, tmp_path: Path) -> None:
    assert list(engine.run_all([DieOnce(tmp_path / "a"), DieOnce(tmp_path / "b")])) == ["done", "done"]


def test_a_shard_that_kills_every_worker_ends_with_a_way_out(engine: ShardEngine) -> None:
    with pytest.raises(InputError, match=r"Finished shards are kept\. Run again with fewer --workers"):
        list(engine.run_all([AlwaysDie()]))


def test_the_error_of_a_worker_arrives_whole(engine: ShardEngine) -> None:
    with pytest.raises(DataError, match=r"requests.jsonl:7: not JSON") as error:
        list(engine.run_all([Fail()]))
    assert error.value.line == 7


def test_a_full_disk_loses_nothing(
    config: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eccos_core.workflows.large_plan import store

    savez, calls = store.np.savez, []

    def full(stream: Any, **arrays: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(stream, **arrays)

    plan = LargePlan(config, requests, tmp_path / "out", InThisProcess(), shard_rows=20)
    monkeypatch.setattr(store.np, "savez", full)
    with pytest.raises(InputError, match=r"no space is left for .* Finished shards"):
        plan.run()
    assert len(list((tmp_path / "out" / "forecast").iterdir())) == 2  # and no temporary file
    assert plan.run().forecast_again == 3


def test_gzip_and_parquet_give_the_plan_of_the_plain_file(config: Path, requests: Path, tmp_path: Path) -> None:
    packed, table = tmp_path / "requests.jsonl.gz", tmp_path / "requests.parquet"
    packed.write_bytes(gzip.compress(requests.read_bytes()))
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in requests.read_text().splitlines()]), table)
    found = []
    for number, file in enumerate((requests, packed, table)):
        LargePlan(config, file, tmp_path / f"out{number}", InThisProcess(), shard_rows=50).run()
        found.append(rows_of(tmp_path / f"out{number}"))
    assert found[0] == found[1] == found[2]
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(DataError, match="the Parquet data is damaged"):
        LargePlan(config, table, tmp_path / "out3", InThisProcess()).run()


def test_bad_input_is_named(config: Path, requests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "-r", str(requests), "-c", str(config), "-o", str(tmp_path / "out"), "--workers", "1"]
    for more, said in (
        (["--picture", "plan.png"], "--picture draws a plan without --output"),
        (["--engine", "spark"], "must be one of local, ray"),
        (["--patience", "24h"], "--patience plans without --output"),
    ):
        assert run(app, [*command, *more]) == YOUR_INPUT
        assert said in " ".join(capsys.readouterr().err.split())
    assert run(app, ["plan", "-r", str(requests), "-c", str(config), "--workers", "2"]) == YOUR_INPUT
    assert "Name a folder for the answer with --output" in " ".join(capsys.readouterr().err.split())
    with requests.open("a") as stream:
        stream.write("{broken\n")
    assert run(app, [*command, "--shard-rows", "40"]) == YOUR_INPUT
    assert f"requests.jsonl:{REQUESTS + 1}: not JSON" in "".join(capsys.readouterr().err.split("\n"))
    assert len(list((tmp_path / "out" / "forecast").iterdir())) == 2  # the shards before it are kept
    requests.write_text("\n")
    assert run(app, command) == YOUR_INPUT
    assert "holds no requests" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "changed", "said"),
    [
        ("on_infeasible: best_effort", "escalate: {max_calls: 2}", "Take escalate out of the policy"),
        (
            "encoder: static",
            "encoder: static\n  learning: {explore: 'off'}",
            "eccos.learning corrects it with each label",
        ),
        ("predictor: retrieval", "predictor: {kind: retrieval, online: true}", "Turn predictor.online off"),
    ],
)
def test_a_forecast_that_changes_is_refused(
    config: Path, requests: Path, tmp_path: Path, setting: str, changed: str, said: str
) -> None:
    assert setting in config.read_text()
    config.write_text(config.read_text().replace(setting, changed))
    with pytest.raises(InputError, match=said) as error:
        LargePlan(config, requests, tmp_path / "out", InThisProcess()).run()
    assert str(error.value).startswith("a plan in shards")
    assert str(error.value).endswith("or plan fewer requests without --output")


def test_a_shard_has_the_forecasts_of_single_requests(config: Path, requests: Path, tmp_path: Path) -> None:
    """Blocks, 32-bit floats and files change nothing but the last digits."""
    LargePlan(config, requests, tmp_path / "out", InThisProcess(), shard_rows=40).run()
    router, row = Router.from_yaml(config), 0
    for path in sorted((tmp_path / "out" / "forecast").iterdir()):
        shard = read_arrays(path, 0, 0)
        for at in range(0, len(shard.quality), 9):
            single = router.decider.prepare([read_requests(requests)[row + at]])
            np.testing.assert_allclose(shard.quality[at], single.quality[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(shard.cost_usd[at], single.weighed_usd[0], rtol=1e-6)
            assert (shard.eligible[at] == single.eligible[0]).all()
        row += len(shard.quality)
    assert row == REQUESTS


def test_a_damaged_forecast_is_named(config: Path, requests: Path, tmp_path: Path) -> None:
    plan = LargePlan(config, requests, tmp_path / "out", InThisProcess())
    plan.run()
    (only,) = (tmp_path / "out" / "forecast").iterdir()
    only.write_bytes(only.read_bytes()[:100])
    with pytest.raises(DataError, match="Delete the file and run again"):
        plan.run()


@pytest.mark.parametrize(
    "error",
    [
        DataError("file.jsonl", "not JSON", 3),
        InfeasibleError("budget", 1.0, 2.0, "out of reach"),
        NoEligibleModelError("r1", {"small": "too short"}),
    ],
)
def test_an_error_crosses_to_another_process_whole(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
