"""`eccos certify` from labels to a router that starts with the certificate, on the pocket pool."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core import Request, Router
from eccos_core.assembly.encoder import build_encoder
from eccos_core.certification import read_certificate
from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.config import load_config
from eccos_core.errors import CertificateError, ConfigError, InputError
from eccos_core.pocket import pool_config_path, pool_history_path
from eccos_core.predictors import digest_predictor, load_predictor, save_predictor
from eccos_core.workflows.certify import certify

pytestmark = pytest.mark.timeout(300)
FITTED = 800


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outcomes.jsonl to learn from, labels.jsonl of other questions, and a fitted predictor."""
    folder = tmp_path_factory.mktemp("certify")
    with gzip.open(pool_history_path(), "rt", encoding="utf-8") as lines:
        rows = list(lines)
    (folder / "outcomes.jsonl").write_text("".join(rows[:FITTED]))
    (folder / "labels.jsonl").write_text("".join(rows[FITTED : FITTED + 700]))
    write_config(folder, "{quality_floor: 0.5}")
    assert run(app, ["fit", "-c", str(folder / "eccos.yaml"), "--data", str(folder / "outcomes.jsonl")]) == DONE
    return folder


def write_config(folder: Path, policy: str, name: str = "eccos.yaml", *, small_usd: str = "5.0e-8") -> Path:
    models = pool_config_path().read_text().partition("\neccos:")[0].replace("5.0e-8", small_usd)
    path = folder / name
    path.write_text(
        f"{models}\neccos:\n  encoder: static\n  predictor: {{kind: retrieval, artifact: fitted}}\n"
        f"  history: {{outcomes: outcomes.jsonl}}\n  decision_log: off\n  policy: {policy}\n"
    )
    return path


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A folder of this test alone, with the data in it."""
    for name in ("outcomes.jsonl", "labels.jsonl", "fitted"):
        (tmp_path / name).symlink_to(data / name)
    return tmp_path


def test_a_certified_floor_from_labels_to_the_router(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(folder, "{certified_floor: 0.6, confidence: 0.95}")
    with pytest.raises(CertificateError, match="there is no certificate"):
        Router.from_yaml(path)
    assert run(app, ["certify", "-c", str(path), "--labels", str(folder / "labels.jsonl")]) == DONE
    printed = capsys.readouterr().out
    assert "Certified: mean quality at least 0.6, with 95% confidence. 700 labels" in printed
    certificate = read_certificate(folder / "certificate.json")
    assert certificate.p_value <= 0.05
    assert certificate.mean > 0.6
    with Router.from_yaml(path) as router:
        decision = router.decide("What is 3 + 4?")
        assert decision.certified
        assert decision.usd_per_quality == pytest.approx(certificate.usd_per_quality)
        assert not router.decide(Request.of("What is 3 + 4?", deny={decision.model})).certified


def test_a_floor_costs_less_than_always_the_best_and_a_gap_is_certified_too(folder: Path) -> None:
    floor = certify(load_config(write_config(folder, "{certified_floor: 0.6}")), folder / "labels.jsonl")
    assert floor.cost_usd < 0.6 * floor.dearest_usd
    policy = "{within_points_of: {model: pocket-large, points: 8}, certificate: gap.json}"
    gap = certify(load_config(write_config(folder, policy)), folder / "labels.jsonl")
    assert gap.passed
    assert gap.certificate.test == "betting"
    assert gap.cost_usd < gap.dearest_usd


def test_too_few_labels_say_how_many_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / "labels.jsonl").read_text().splitlines(keepends=True)
    (folder / "few.jsonl").write_text("".join(lines[:15]))
    path = write_config(folder, "{certified_floor: 0.75}")
    assert run(app, ["certify", "-c", str(path), "--labels", str(folder / "few.jsonl")]) == 1
    printed = capsys.readouterr().out
    assert "Too little data" in printed
    assert "more labels are needed" in printed
    with pytest.raises(CertificateError, match="no setting passed"):
        Router.from_yaml(path)


def test_a_floor_above_what_was_ever_reached_is_said_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(folder, "{certified_floor: 0.99}")
    assert run(app, ["certify", "-c", str(path), "--labels", str(folder / "labels.jsonl")]) == 1
    assert "Not reached" in capsys.readouterr().out


def test_a_second_look_needs_a_test_that_allows_it(folder: Path) -> None:
    lines = (folder / "labels.jsonl").read_text().splitlines(keepends=True)
    (folder / "growing.jsonl").write_text("".join(lines[:200]))
    config = load_config(write_config(folder, "{certified_floor: 0.6}"))
    certify(config, folder / "growing.jsonl")
    certify(config, folder / "growing.jsonl")  # the same labels again: the same look
    (folder / "growing.jsonl").write_text("".join(lines[:400]))
    with pytest.raises(InputError, match="Give --growing from the first look on"):
        certify(config, folder / "growing.jsonl")
    with pytest.raises(InputError, match="Give --growing from the first look on"):
        certify(config, folder / "growing.jsonl", growing=True)
    (folder / "certificate.json").unlink()
    certify(config, folder / "growing.jsonl", growing=True)
    (folder / "growing.jsonl").write_text("".join(lines))
    assert certify(config, folder / "growing.jsonl", growing=True).certificate.labels == 700


def test_a_refit_another_pool_and_another_price_make_it_void(folder: Path) -> None:
    path = write_config(folder, "{certified_floor: 0.6}")
    certify(load_config(path), folder / "labels.jsonl")
    with Router.from_yaml(path) as router:
        other = router.parts.predictor.for_pool(router.parts.names[:3])  # type: ignore[attr-defined]
        with pytest.raises(CertificateError, match="is void"):
            replace(router.parts, predictor=other, models=router.parts.models[:3])
    with pytest.raises(CertificateError, match="is void"):
        Router.from_yaml(write_config(folder, "{certified_floor: 0.6}", small_usd="6.0e-8"))
    config = load_config(path)
    lines = (folder / "outcomes.jsonl").read_text().splitlines(keepends=True)
    (folder / "fewer.jsonl").write_text("".join(lines[:300]))
    (folder / "fitted").unlink()
    assert run(app, ["fit", "-c", str(path), "--data", str(folder / "fewer.jsonl")]) == DONE
    with pytest.raises(CertificateError, match="is void"):
        Router.from_yaml(config.path)


def test_an_alarm_about_drift_makes_it_void_loudly(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_config(folder, "{certified_floor: 0.6}")
    certify(load_config(path), folder / "labels.jsonl")
    with Router.from_yaml(path) as router, caplog.at_level("ERROR", "eccos.certificate"):
        assert router.decide("What is 3 + 4?").certified
        assert router.status().certificate_problem is None
        for _ in range(100):
            router.record(router.decide("What is 3 + 4?").id, 0.0)
        assert not router.decide("What is 3 + 4?").certified
        problem = router.status().certificate_problem
    assert problem is not None
    assert problem.startswith("the certificate is void: ")
    assert "the certificate is void" in caplog.text
    assert "run `eccos certify` again" in caplog.text


def test_labels_of_another_pool_are_refused(folder: Path) -> None:
    config = load_config(write_config(folder, "{certified_floor: 0.6}"))
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    for row in rows:
        for output in row["outputs"]:
            output["model"] = f"other-{output['model']}"
    (folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="700 of 700 questions lack the score of some model"):
        certify(config, folder / "other.jsonl")


def test_the_digest_of_a_predictor_survives_a_save(folder: Path) -> None:
    config = load_config(write_config(folder, "{quality_floor: 0.5}"))
    encoder = build_encoder(config.encoder)
    first = load_predictor(folder / "fitted", encoder=encoder.name)
    save_predictor(first, folder / "again", encoder=encoder.name)
    assert digest_predictor(load_predictor(folder / "again")) == digest_predictor(first)


def test_labels_that_cannot_be_used_are_named(folder: Path) -> None:
    config = load_config(write_config(folder, "{certified_floor: 0.6}"))
    with pytest.raises(InputError, match="in the history that the predictor learned from"):
        certify(config, folder / "outcomes.jsonl")
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    rows[3]["outputs"] = rows[3]["outputs"][:2]
    (folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="1 of 700 questions lack the score of some model"):
        certify(config, folder / "part.jsonl")
    with pytest.raises(InputError, match="asks for no certificate"):
        certify(load_config(write_config(folder, "{quality_floor: 0.6}")), folder / "labels.jsonl")


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("{certified_floor: 1.0}", "eccos.policy.certified_floor"),
        ("{certified_floor: 0.7, confidence: 1.0}", "eccos.policy.confidence"),
        ("{certified_floor: 0.7, confidence: 0}", "eccos.policy.confidence"),
        ("{within_points_of: {model: lrge, points: 2}}", "names 'lrge'"),
        ("{within_points_of: {model: pocket-large, points: 100}}", "eccos.policy.within_points_of.points"),
        (
            "{budget_usd: 1, confidence: 0.9}",
            "confidence, which only certified_floor, within_points_of and quality_floor",
        ),
        (
            "{quality_floor: 0.7, certificate: c.json}",
            "certificate, which only certified_floor and within_points_of take",
        ),
        ("{quality_floor: 0.7, confidence: 1.5}", "eccos.policy.confidence"),
        ("{certified_floor: 0.7, quality_floor: 0.7}", "give exactly one of"),
    ],
)
def test_a_wrong_policy_is_named(policy: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(write_config(tmp_path, policy))
