"""A judge's grades are corrected by the labels of people, and a raw grade is never lost."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_router import answer, build, label_of, read
from logged_pool import write_config, write_log

from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.decision_log import DecisionLog, LabelEntry
from eccos_core.domain import Judgement
from eccos_core.labelling import GradeCalibrator, fit_calibration, measure_agreement
from eccos_core.labelling.calibration import MIN_PAIRS, calibrate_out_of_fold


def kind_judge(count: int, seed: int = 0) -> list[tuple[float, float]]:
    """A judge that sees quality with noise, gives 0.3 too much, and writes whole points. People say good or bad."""
    draw = np.random.default_rng(seed)
    quality = draw.random(count)
    people = (draw.random(count) < quality).astype(float)
    grades = np.round(np.clip(quality + 0.3 + draw.normal(0, 0.1, count), 0, 1), 1)
    return list(zip(grades.tolist(), people.tolist(), strict=True))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=MIN_PAIRS, max_size=60))
def test_a_correction_keeps_the_order_and_stays_between_0_and_1(pairs: list[tuple[float, float]]) -> None:
    found = fit_calibration(pairs)
    assert found is not None
    corrected = found.apply_all(np.linspace(0, 1, 41))
    assert (np.diff(corrected) >= -1e-12).all()
    assert corrected.min() >= 0
    assert corrected.max() <= 1
    assert fit_calibration(pairs[: MIN_PAIRS - 1]) is None


def test_a_kind_judge_is_corrected_and_one_that_knows_nothing_says_the_mean() -> None:
    found = fit_calibration(kind_judge(400))
    assert found is not None
    tested = kind_judge(4000, seed=1)
    before = np.mean([grade - person for grade, person in tested])
    after = np.mean([found.apply(grade) - person for grade, person in tested])
    assert before > 0.2
    assert abs(after) < 0.04
    draw = np.random.default_rng(0)
    blind = fit_calibration([(float(draw.random()), float(draw.random() < 0.3)) for _ in range(400)])
    assert blind is not None
    assert blind.apply(0.9) == pytest.approx(0.3, abs=0.08)
    backwards = fit_calibration([(grade, 1 - grade) for grade in np.linspace(0, 1, 100)])
    assert backwards is not None
    assert (backwards.slope, backwards.apply(0.0)) == (0.0, backwards.apply(1.0))


def test_few_pairs_move_grades_little_and_an_honest_judge_stays_as_it_is() -> None:
    draw = np.random.default_rng(2)
    grades = draw.random(300)
    honest = fit_calibration(
        list(zip(grades.tolist(), (draw.random(300) < grades).astype(float).tolist(), strict=True))
    )
    assert honest is not None
    np.testing.assert_allclose(honest.apply_all([0.2, 0.5, 0.8]), [0.2, 0.5, 0.8], atol=0.1)
    assert honest.version != fit_calibration(kind_judge(300)).version  # type: ignore[union-attr]


def test_agreement_after_calibration_is_measured_on_labels_that_did_not_teach_it() -> None:
    pairs = kind_judge(200)
    found = measure_agreement(pairs, calibrate=True)
    assert found is not None
    assert found.calibrated is not None
    assert found.calibrated.error < found.error
    assert abs(found.calibrated.bias) < 0.05 < found.bias
    assert found.kappa_interval is not None
    assert found.kappa_interval[0] < (found.kappa or 0) < found.kappa_interval[1]
    assert found.correlation_interval is not None
    assert found.correlation_interval[0] < (found.correlation or 0) < found.correlation_interval[1]
    assert "error 0." in str(found)
    assert calibrate_out_of_fold(pairs[:24]) is None
    noise = [(float(grade), float(person)) for grade, person in np.random.default_rng(5).random((40, 2)).round()]
    after = calibrate_out_of_fold(noise)
    assert after is not None
    assert measure_agreement(after).kappa <= 0.35  # type: ignore[union-attr,operator]
    few = measure_agreement(pairs[:9], calibrate=True)
    assert few is not None
    assert few.kappa_interval is few.correlation_interval is few.calibrated is None


def label_pairs(log: DecisionLog, pairs: list[tuple[float, float]], judge: str = "judge") -> None:
    """Write pairs of labels as the judge and people would, without waiting for the disk each time."""
    log.flush()
    columns = "decision_id, source, quality, at, judge, grade, uncalibrated"
    with sqlite3.connect(log.path) as connection:
        for row, (grade, person) in enumerate(pairs):
            both = [
                (f"{judge}{row}", "judge", grade, row, judge, grade, grade),
                (f"{judge}{row}", "human", person, row, None, None, None),
            ]
            connection.executemany(f"INSERT INTO labels ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", both)


def test_grades_are_corrected_before_they_teach_and_the_raw_grade_is_kept(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 8"])
    first = answer(router, "one")
    labeller.wait()
    assert label_of(router, first) == (0.8, "judge")
    assert labeller.status().calibrated_by == 0
    pairs = kind_judge(60)
    label_pairs(read(router), pairs)
    labeller._calibrator._looked_at = None  # type: ignore[union-attr]  # a minute has passed
    second = answer(router, "two")
    labeller.wait()
    found = fit_calibration(pairs)
    assert found is not None
    assert label_of(router, second) == (pytest.approx(found.apply(0.8)), "judge")
    assert found.apply(0.8) < 0.7
    history = router.decision_store.history
    assert history is not None
    table, _ = history.table()
    assert sorted(table.quality[:, table.models.index("small")]) == pytest.approx([found.apply(0.8), 0.8])
    query = "SELECT grade, uncalibrated, calibration FROM labels WHERE decision_id = ?"
    assert read(router).reader.rows(query, (second,), table="labels") == [(0.8, 0.8, found.version)]
    kept = read(router).reader.rows("SELECT version, judge, slope, pairs FROM calibrations", table="calibrations")
    assert kept == [(found.version, "judge", found.slope, 60)]
    assert labeller.status().calibrated_by == 60
    read(router).label(second, 1.0)
    assert read(router).label_pairs("judge")[-1] == (0.8, 1.0)  # what the judge said, not what became of it


def test_calibration_can_be_turned_off(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 8"], calibrate=False)
    answer(router, "one")
    label_pairs(read(router), kind_judge(60))
    second = answer(router, "two")
    labeller.wait()
    assert label_of(router, second) == (0.8, "judge")


def test_a_calibrator_looks_once_a_minute_and_learns_from_its_own_judge_only(tmp_path: Path) -> None:
    log, now = DecisionLog(tmp_path / "log.sqlite"), [0.0]
    write_log(tmp_path / "log.sqlite", [("small", 1.0, 0.001, None)])
    calibrator = GradeCalibrator(log, "judge", lambda: now[0])
    label_pairs(log, kind_judge(60), judge="another")
    assert calibrator.current() is None
    label_pairs(log, kind_judge(40))
    assert calibrator.current() is None, "it has just looked"
    now[0] += 61
    found = calibrator.current()
    assert found is not None
    assert found.pairs == 40
    assert log.judges() == ["another", "judge"]
    log.close()
    assert GradeCalibrator(None, "judge").current() is None


def test_a_log_of_an_older_version_keeps_its_labels_and_gets_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    write_log(path, [("small", 1.0, 0.001, None)] * 2)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE labels")
        connection.execute(
            "CREATE TABLE labels (decision_id TEXT NOT NULL, source TEXT NOT NULL, quality REAL NOT NULL, "
            "at REAL NOT NULL, PRIMARY KEY (decision_id, source)) STRICT"
        )
        connection.executemany("INSERT INTO labels VALUES (?, ?, ?, 0)", [("d0", "judge", 0.7), ("d0", "human", 1.0)])
    log = DecisionLog(path)
    assert log.label_pairs("judge") == [(0.7, 1.0)]
    assert log.judges() == []
    log.add_label(LabelEntry("d1", 0.4, "judge", Judgement("large", 0.8, 0.8, None, "v1")))
    log.label("d1", 0.0)
    log.close()
    assert log.label_pairs("judge") == [(0.7, 1.0), (0.8, 0.0)]
    assert log.label_pairs("judge", judge="large") == [(0.8, 0.0)]


def test_status_says_how_far_the_judge_agrees_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", [("small", 1.0, 0.001, None)])
    log = DecisionLog(tmp_path / "log.sqlite")
    label_pairs(log, kind_judge(60))
    label_pairs(log, kind_judge(30, seed=3), judge="another")
    log.close()
    assert run(app, ["status", "-c", str(config), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)["agreement"]
    assert set(found) == {"judge", "judge judge", "judge another"}
    one = found["judge judge"]
    assert one["labels"] == one["calibrated"]["labels"] == 60
    assert one["calibrated"]["error"] < one["error"]
    assert run(app, ["status", "-c", str(config)]) == DONE
    out = " ".join(capsys.readouterr().out.split())
    assert "judge another beside people: 30 answers with both labels" in out
    assert "Calibrated: " in out
