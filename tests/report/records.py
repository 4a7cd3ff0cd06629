"""Records as the store returns them, made without a database, and what is drawn and printed of them."""

import io
import json
from dataclasses import asdict
from typing import Any

from PIL import Image
from rich.console import Console

from klcli.report.plots.chart import Chart, Line
from klcli.report.tables.table import Table
from klcli.report.tables.terminal import show
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run, Study
from klcli.training.budget import budget_of

MEASURES = tuple(f"{split}_{name}" for split in ("train", "validation") for name in ("cost", "loss", "accuracy"))


def run(id: int = 1, config: TrainConfig | None = None, **fields: Any) -> Run:
    """Return a complete run on CIFAR-10 with n_s, cycles and epochs that follow from its config."""
    config = config or TrainConfig()
    budget = budget_of(config, config.split.sizes()[0])
    usual: dict[str, Any] = {
        "state": "complete",
        "started_at": "2026-05-31T12:00:00+00:00",
        "host": "here",
        "pid": 1,
        "command": "klcli train",
        "dataset": "cifar10",
        "dataset_sha256": "a" * 64,
        "dataset_source": "cifar-10/",
        "step_size": budget.step_size,
        "cycles": budget.cycles,
        "epochs": budget.epoch_at(budget.total_updates),
        "epochs_done": budget.epoch_at(budget.total_updates),
        "threads": 1,
        "config_json": config.to_json(),
        "split_json": json.dumps(asdict(config.split), separators=(",", ":")),
        "versions_json": "{}",
    }
    return Run(id=id, **usual | fields)


def epoch(step: int, run_id: int = 1, **fields: Any) -> Epoch:
    """Return an evaluation after so many updates; what is not given is 0."""
    usual = dict.fromkeys(MEASURES, 0.0) | {"epoch": step / 450, "learning_rate": 0.02, "seconds": 1.0}
    return Epoch(run_id=run_id, step=step, **usual | fields)


def lines_of(chart: Chart) -> dict[tuple[str, str | None], Line]:
    """Return every line of a chart by the title of its panel and its label."""
    return {(panel.title, line.label): line for row in chart.panels for panel in row for line in panel.lines}


def points(line: Line) -> list[tuple[float, float]]:
    """Return the points of a line."""
    return list(zip(line.x, line.y, strict=True))


def study(id: int = 1, kind: str = "lambda", **fields: Any) -> Study:
    """Return a complete study."""
    usual: dict[str, Any] = {
        "stage": None,
        "settings": {},
        "state": "complete",
        "created_at": "2026-05-31T12:00:00+00:00",
    }
    return Study(id=id, kind=kind, **usual)


def size_of_png(content: bytes) -> tuple[int, int]:
    """Return width and height of a picture, of which Pillow has checked every chunk."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.verify()
        return image.size


def printed(table: Table, width: int) -> str:
    """Return a table as a terminal of this width shows it, without colours."""
    show(table, Console(file=(out := io.StringIO()), width=width, color_system=None))
    return out.getvalue()
