"""`eccos savings` and `Router.savings`: the measured part, the estimated part, and what cannot be told."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from logged_pool import write_config, write_log

from eccos_core import Router
from eccos_core.certification import mean_interval
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.decision_log import DecisionLog, SpendingEntry
from eccos_core.errors import InputError
from eccos_core.testing import ScriptedBackend, scripted_router

ROWS: list[tuple[str, float, float, float | None]] = [
    *[("small", 1.0, 0.001, 1.0)] * 6,
    *[("small", 1.0, 0.001, 0.0)] * 2,
    *[("large", 1.0, 0.02, 1.0)] * 2,
]


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_what_was_paid_and_labelled_is_measured_and_the_rest_is_estimated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", ROWS)
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    found = told(capsys)
    measured, estimated = found["measured"], found["estimated"]
    assert (measured["requests"], measured["unanswered"], measured["labelled"]) == (10, 0, 10)
    assert measured["paid_usd"] == pytest.approx(8 * 0.001 + 2 * 0.02)
    assert measured["answers"] == {"small": 8, "large": 2}
    assert measured["mean_label"]["value"] == pytest.approx(0.8)
    labels = [label for *_, label in ROWS]
    assert (measured["mean_label"]["low"], measured["mean_label"]["high"]) == mean_interval(labels)  # type: ignore[arg-type]
    # large is the best forecast, and its two calls cost twice what was forecast
    assert (estimated["baseline"], found["baseline_is_default"]) == ("large", True)
    assert estimated["cost_correction"] == pytest.approx(2)
    assert estimated["baseline_usd"] == pytest.approx(2 * 0.02 + 8 * 2 * 0.01)
    assert estimated["baseline_usd_interval"] is None  # two calls are too few
    assert estimated["saved_share"] == pytest.approx(1 - 0.048 / 0.2)
    assert estimated["forecast_baseline_quality"] == pytest.approx(0.9)
    assert estimated["measurable"] == pytest.approx(0.2)


def test_the_words_say_which_part_is_which_and_a_picture_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, picture = write_config(tmp_path), tmp_path / "savings.png"
    write_log(tmp_path / "log.sqlite", [*ROWS, ("small", 1.0, 0.001, None)])
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("UPDATE decisions SET label_source = 'judge' WHERE id = 'd0'")
    assert run(app, ["savings", "-c", str(config), "--picture", str(picture)]) == DONE
    out = capsys.readouterr().out
    assert out.index("Measured") < out.index("11 requests were answered for 0.0490 USD") < out.index("Estimated")
    assert "10 answers have a label (human 9, judge 1). Their mean quality is 0.800" in out
    assert "Estimated: every request to large" in out
    assert "best mean forecast of the pool" in out
    assert "its 2 recorded calls" in out
    assert "you cannot tell which of the two is better" in out
    assert "Labels tell about large on 18% of the requests" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_labelling_cost_is_measured_apart_and_taken_from_the_saving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, picture = write_config(tmp_path), tmp_path / "savings.svg"
    write_log(tmp_path / "log.sqlite", [*ROWS, ("small", 1.0, 0.001, None)])
    log = DecisionLog(tmp_path / "log.sqlite")
    for decision_id, call, usd in (("d0", "judge", 0.01), ("d1", "judge", 0.02), ("d1", "shadow", 0.03)):
        log.add_spending(SpendingEntry(decision_id, call, usd))  # type: ignore[arg-type]
    log.add_spending(SpendingEntry("of another log", "judge", 9.0))
    log.close()
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    found = told(capsys)
    measured, estimated = found["measured"], found["estimated"]
    assert measured["paid_usd"] == pytest.approx(0.049)
    assert (measured["judge_usd"], measured["shadow_usd"]) == (pytest.approx(0.03), pytest.approx(0.03))
    assert measured["labelling_usd"] == pytest.approx(0.06)
    assert estimated["baseline_usd"] == pytest.approx(0.22)
    assert estimated["saved_usd"] == pytest.approx(0.22 - 0.049)
    assert estimated["net_saved_usd"] == pytest.approx(0.22 - 0.049 - 0.06)
    assert estimated["net_saved_share"] == pytest.approx((0.22 - 0.049 - 0.06) / 0.22)
    assert run(app, ["savings", "-c", str(config), "--picture", str(picture)]) == DONE
    out = capsys.readouterr().out
    assert out.index("Labelling cost 0.0600 USD on top: 0.0300 USD for the judge, 0.0300 USD for shadow answers.") < (
        out.index("Estimated")
    )
    assert "Routing saved 0.171 USD, 77.7%. After what labelling cost, you saved 0.111 USD, 50.5%." in out
    with Router.from_yaml(config) as router:
        assert router.savings().curve[-1] == pytest.approx((11, 0.049, 0.109, 0.22))
    with_labelling = len(picture.read_bytes())
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("DROP TABLE spending")  # a log of an older version
    assert run(app, ["savings", "-c", str(config), "--picture", str(picture)]) == DONE
    assert "Labelling" not in capsys.readouterr().out
    assert len(picture.read_bytes()) < with_labelling, "one curve less"


def test_enough_calls_of_the_baseline_give_its_cost_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", [*ROWS, *[("large", 1.0, usd, None) for usd in (0.005, 0.01, 0.03)]])
    assert run(app, ["savings", "-c", str(config), "--baseline", "large", "--json"]) == DONE
    estimated = told(capsys)["estimated"]
    low, high = estimated["baseline_usd_interval"]
    assert low < estimated["baseline_usd"] < high
    assert estimated["baseline_calls"] == 5


def test_without_labels_quality_is_only_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", [("small", 1.0, 0.001, None)] * 5)
    assert run(app, ["savings", "-c", str(config), "--picture", str(tmp_path / "savings.svg")]) == DONE
    out = capsys.readouterr().out
    assert "No answer has a label, so quality is only forecast: 0.600 as routed, 0.900 by large." in out
    assert "No call of large is in the log, so nothing checks it" in out
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    found = told(capsys)
    assert found["measured"]["mean_label"] is None
    assert found["estimated"]["quality"] is found["estimated"]["quality_change"] is None


def test_bad_input_has_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)

    def refused(*options: str) -> str:
        assert run(app, ["savings", "-c", str(config), *options]) == YOUR_INPUT
        return capsys.readouterr().err

    assert "it holds no decision" in refused()
    write_log(tmp_path / "log.sqlite", ROWS, ago_s=7200)
    assert "'larg': " in refused("--baseline", "larg")
    assert "did you mean 'large'? It has small, large." in refused("--baseline", "larg")
    assert "--since is 'last week', it must be a duration" in refused("--since", "last week")
    assert "it holds no decision since that time. Give an earlier --since" in refused("--since", "1h")
    text = config.read_text()
    config.write_text(text.replace("model_name: small", "model_name: a").replace("model_name: large", "model_name: b"))
    assert "this is the log of another pool. Its decisions are about small, large, and your pool has a, b" in refused()
    config.write_text(text.replace("{path: log.sqlite}", "off"))
    assert "eccos.decision_log is off" in refused()


def test_decisions_without_an_answer_are_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", ROWS)
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("UPDATE decisions SET model = NULL, paid_usd = NULL WHERE id IN ('d0', 'd1')")
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    measured = told(capsys)["measured"]
    assert (measured["requests"], measured["unanswered"]) == (8, 2)
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("UPDATE decisions SET model = NULL")
    assert run(app, ["savings", "-c", str(config)]) == YOUR_INPUT
    assert "none of its 10 decisions was answered" in capsys.readouterr().err


def test_a_log_of_an_older_version_is_read_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", [("small", 0.5, 0.001, 1.0)] * 5)
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("ALTER TABLE decisions DROP COLUMN propensity")
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    found = told(capsys)
    assert found["measured"]["requests"] == found["measured"]["labelled"] == 5
    assert found["estimated"]["measurable"] == 0  # a choice of an older log counts as certain
    log = DecisionLog(tmp_path / "log.sqlite")
    log.label("d0", 0.25)
    log.close()
    assert [entry.label for entry in log.entries()] == [1.0, 1.0, 1.0, 1.0, 0.25]


def test_a_model_that_joined_the_pool_later_gets_its_mean_forecast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", ROWS)
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("UPDATE decisions SET forecast = ? WHERE id = 'd0'", ('{"small": [0.6, 0.001]}',))
    assert run(app, ["savings", "-c", str(config), "--json"]) == DONE
    assert told(capsys)["estimated"]["baseline_usd"] == pytest.approx(0.2)


def test_a_router_reports_its_own_savings(tmp_path: Path) -> None:
    from eccos_core.domain import Model

    with Router.from_yaml(write_config(tmp_path)) as router:
        answer = router.complete("Question?", max_tokens=4)
        router.record(answer.decision.id, 1.0)
        report = router.savings("large")
        assert report.measured.paid_usd == answer.cost_usd
        assert report.measured.labelled == 1
        assert report.estimated.baseline == "large"
        with pytest.raises(InputError, match="baseline 'tiny'"):
            router.savings("tiny")
    unlogged = scripted_router(ScriptedBackend({"small": "yes"}), [Model("small", 0.0, 0.0)], {"": [0.5]})
    with pytest.raises(InputError, match="no decision log"):
        unlogged.savings()
