"""ECCOS-T (b) from the configuration to a routed request: trained by `eccos fit`, killed, resumed, served."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pocket_pool import QUESTIONS, write_outcomes_part, write_pool_config
from tiny_encoder import make_tiny_model

from eccos_core import Router
from eccos_core.assembly.build import Assembler
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import load_config
from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.outcomes import read_outcomes
from eccos_core.predictors import FineTunedPredictor, FineTuning, fine_tune

pytestmark = pytest.mark.timeout(300)
PREDICTOR = "predictor: {kind: trained, method: fine_tuned, artifact: fitted}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(tmp_path: Path, tiny: Path) -> Path:
    """The pocket pool on a folder of Chroma in vectors of a tiny encoder, which the predictor fine-tunes."""
    file = write_pool_config(tmp_path, "{path: history}")
    file.write_text(file.read_text().replace("encoder: static", f"encoder: {tiny}"))
    assert run(app, ["ingest", str(write_outcomes_part(tmp_path)), "-c", str(file)]) == DONE
    file.write_text(file.read_text().replace("predictor: retrieval", PREDICTOR))
    return file


def test_it_is_fitted_loaded_and_routed_with_and_labels_join_the_history(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(app, ["route", "Is 7 larger than 3?", "-c", str(config), "--json"]) == YOUR_INPUT
    assert "no fine-tuned predictor here" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert run(app, ["fit", "-c", str(config), "--json"]) == DONE
    report = json.loads(capsys.readouterr().out)
    assert (report["predictor"], report["questions"]) == ("finetuned", QUESTIONS)

    router = Router.from_yaml(config)
    assert isinstance(router.decider.predictor, FineTunedPredictor)
    assert router.decider.encoder.name.startswith("finetuned:")
    [decision] = router.route(["Which ferry leaves at noon?"])
    assert decision.model in router.decider.predictor.models
    router.record(decision.id, 1.0)
    assert len(router.decision_store.history) == QUESTIONS + 1  # type: ignore[arg-type]
    assert run(app, ["route", "Is 7 larger than 3?", "-c", str(config), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["model"] == router.decide("Is 7 larger than 3?").model


def test_a_reload_keeps_what_it_remembers_and_a_smaller_pool_is_served(config: Path) -> None:
    assert run(app, ["fit", "-c", str(config)]) == DONE
    assembler = Assembler()
    built = assembler.assemble(load_config(config))
    text = config.read_text()
    config.write_text(text.replace("quality_floor: 0.6", "quality_floor: 0.7"))
    again = assembler.assemble(load_config(config))
    assert again.decision_store is built.decision_store
    start, end = text.index("  - model_name: pocket-medium"), text.index("  - model_name: pocket-maths")
    config.write_text(text[:start] + text[end:])
    smaller = Assembler().assemble(load_config(config))
    vectors = built.encoder.encode(["What is 3 + 4?"])
    whole, part = (each.predictor.predict(vectors, [9.0]) for each in (built, smaller))  # type: ignore[arg-type]
    assert part.models == tuple(name for name in whole.models if name != "pocket-medium")
    kept = [whole.models.index(name) for name in part.models]
    for name in ("quality", "quality_se", "output_tokens", "output_tokens_high"):
        assert getattr(part, name)[0] == pytest.approx(getattr(whole, name)[0, kept])


def test_what_cannot_be_fine_tuned_says_the_way_out(config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace(PREDICTOR, "predictor: {kind: trained, method: fine_tuned}"))
    with pytest.raises(InputError, match="trained by `eccos fit`"):
        Router.from_yaml(config)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("do not touch")
    assert run(app, ["fit", "-c", str(config), "--out", str(tmp_path / "taken")]) == YOUR_INPUT
    assert (tmp_path / "taken" / "letter.txt").read_text() == "do not touch"
    config.write_text(text.replace("encoder: ", "encoder: static #").replace("path: history", "path: other"))
    assert run(app, ["fit", "-c", str(config)]) == YOUR_INPUT


TRAIN = """
import sys
from pathlib import Path
from eccos_core.io.outcomes import read_outcomes
from eccos_core.predictors import FineTuning, fine_tune
fine_tune(read_outcomes(sys.argv[1]), sys.argv[2], sys.argv[3], FineTuning(epochs=400, patience=400, device="cpu"))
"""


def test_a_run_that_was_killed_goes_on_after_its_last_whole_epoch(tmp_path: Path, tiny: Path) -> None:
    outcomes, folder = write_outcomes_part(tmp_path), tmp_path / "out"
    progress = folder / "checkpoint" / "progress.json"
    for rounds in (1, 2):
        running = subprocess.Popen([sys.executable, "-c", TRAIN, str(outcomes), str(tiny), str(folder)])
        ends = time.monotonic() + 120
        while not (progress.is_file() and epochs_done(progress) >= 3 * rounds):
            assert running.poll() is None, "the run ended by itself"
            assert time.monotonic() < ends, "no checkpoint"
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()

    class EnoughError(Exception):
        pass

    steps: list[int] = []

    def note(done: int, total: int, loss: float) -> None:
        steps.append(done)
        raise EnoughError

    with pytest.raises(EnoughError):
        fine_tune(
            read_outcomes(outcomes), tiny, folder, FineTuning(epochs=400, patience=400, device="cpu"), progress=note
        )
    an_epoch = -(-round(0.9 * QUESTIONS) // 32)
    assert steps[0] > 6 * an_epoch
    assert steps[0] % an_epoch == 1  # the first step of an epoch
    assert not [each for each in folder.glob(".*") if "checkpoint" in each.name]  # nothing half-written stays


def epochs_done(progress: Path) -> int:
    try:
        return int(json.loads(progress.read_text())["epochs"])
    except (OSError, ValueError):
        return 0  # it is being replaced


def test_heads_of_another_epoch_than_the_encoders_are_refused(tmp_path: Path, tiny: Path) -> None:
    table = read_outcomes(write_outcomes_part(tmp_path))
    fine_tune(table, tiny, tmp_path / "out", FineTuning(epochs=1, device="cpu"))
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"weights": "', '"weights": "0'))
    from eccos_core.predictors import load_fine_tuned

    with pytest.raises(ArtifactError, match="different epochs"):
        load_fine_tuned(tmp_path / "out", device="cpu")
