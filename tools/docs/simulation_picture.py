"""Take the picture of a simulation: `python -m tools.docs.simulation_picture` writes docs/images/simulation.png.

It runs `eccos simulate` on the recorded answers of the pocket pool, and opens the page in headless Chromium.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.config import load_config
from eccos_core.pocket import pool_config_path, pool_history_path
from tools.docs.chromium import open_browser

PICTURE = Path("docs/images/simulation.png")
WIDTH, HEIGHT = 1180, 1080


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as name:
        prices, page_file = Path(name) / "prices.json", Path(name) / "stream.html"
        usd = {
            model.name: {
                "usd_per_million_input_tokens": 1e6 * model.usd_per_input_token,
                "usd_per_million_output_tokens": 1e6 * model.usd_per_output_token,
            }
            for model in load_config(pool_config_path()).models
        }
        prices.write_text(json.dumps(usd))
        given = ["--data", str(pool_history_path()), "--prices", str(prices), "--floor", "0.62", "--seeds", "5"]
        given += [
            "--arrivals",
            "bursty",
            "--load",
            "0.3",
            "--count",
            "2000",
            "--order",
            "random,hard_bursts",
            "--report",
            str(page_file),
        ]
        if run(app, ["simulate", *given]) != DONE:
            raise SystemExit("eccos simulate failed, see above")
        with open_browser(Path(name) / "profile") as page:
            page.look(WIDTH, HEIGHT)
            page.open(page_file.as_uri())
            page.screenshot(PICTURE)
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
