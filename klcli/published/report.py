"""Published reports: their experiments and numbers, read from reports/*.toml, one file for each."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.check_settings import CheckSettings
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig

# What a report can have published of a training: columns of runs. `best` is the highest of all evaluations.
RESULTS = (
    *(f"{split}_{name}" for split in ("train", "validation", "test") for name in ("accuracy", "loss", "cost")),
    "best_validation_accuracy",
)
# And of a checked tensor.
ERRORS = ("max_absolute", "relative_to_sum", "relative_to_maximum", "ratio_of_maxima", "gradient_mean", "gradient_std")
WORDS = ("reason", "note", "if_differs")  # said of a number; those of a row replace those of its experiment
PANELS = ("training", "bn", "lambda", "sigma")
_SETTINGS = tuple(field.name for field in fields(TrainConfig))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One published number, or what stands in its place."""

    row: str  # of the report's tables and figures: 003-T3
    what: str  # which experiment: `coarse search of lambda, lambda 0.004237`
    quantity: str | None  # of RESULTS or ERRORS; None where there is no number
    published: float | None
    reason: str | None = None  # why it cannot be compared
    note: str | None = None  # what must be known to read it
    if_differs: str | None = None  # what is known to be different
    config: TrainConfig | None = None  # the training behind it, of the first seed
    tensor: str | None = None  # the gradient behind it, by its key in a network
    check: "GradientExperiment | None" = None


@dataclass(frozen=True)
class Experiment:
    """Trainings of one kind."""

    name: str
    configs: tuple[TrainConfig, ...]  # of the first seed, in the order of the rows
    repeats: int  # at least so many seeds
    is_chain: bool = False  # each training goes on with the weights of the one before


@dataclass(frozen=True)
class GradientExperiment:
    """One network whose gradients are checked with several lambdas."""

    name: str
    config: TrainConfig
    lambdas: tuple[float, ...]
    images: int
    dims: int

    @property
    def settings(self) -> CheckSettings:
        """How they are checked."""
        return CheckSettings(images=self.images, dims=self.dims)

    def networks(self) -> list[tuple[TrainConfig, ...]]:
        """Return the networks to check, one per lambda."""
        return [(replace(self.config, lam=lam),) for lam in self.lambdas]


@dataclass(frozen=True)
class Figure:
    """A figure of a report: which rows it shows, and how."""

    rows: tuple[str, ...]
    panels: str  # of PANELS
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A published report."""

    name: str  # of the preset: a3-2024
    number: str
    course: str
    date: str
    summary: str
    lines: tuple[Line, ...]
    experiments: tuple[Experiment, ...]
    gradient_checks: tuple[GradientExperiment, ...]
    figures: tuple[Figure, ...]
    conditions: str | None = None  # what runs where its text and its code differ
    as_published: "Report | None" = None  # the rows whose numbers come from how they were made, made in that way

    @property
    def title(self) -> str:
        """`report 003, KTH DD2424, Assignment 3, May 2024`."""
        return f"report {self.number}, {self.course}, {self.date}"

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of its rows, each once, in their order."""
        return tuple(dict.fromkeys(line.row for line in self.lines))

    def only(self, rows: Sequence[str]) -> "Report":
        """Return the report with these rows alone, by name or by how names begin; all where there are none.

        `T1` means the same as `003-T1`. Raises ConfigError for a row that it does not have.
        """
        if not rows:
            return self
        kept: set[str] = set()
        for wanted in rows:
            name = wanted if wanted.startswith(f"{self.number}-") else f"{self.number}-{wanted}"
            found = {name} & set(self.rows) or {row for row in self.rows if row.startswith(name)}
            if not found:
                raise ConfigError(f"--only {wanted}: report {self.name} has no such row, it has {', '.join(self.rows)}")
            kept |= found
        lines = tuple(line for line in self.lines if line.row in kept)
        configs = {line.config for line in lines}
        experiments = tuple(
            replace(one, configs=tuple(config for config in one.configs if config in configs))
            for one in self.experiments
        )
        checks = tuple(one for one in self.gradient_checks if any(line.check == one for line in lines))
        figures = tuple(one for one in self.figures if kept & set(one.rows))
        return replace(
            self,
            lines=lines,
            experiments=tuple(one for one in experiments if one.configs),
            gradient_checks=checks,
            figures=figures,
        )

    def with_configs(self, change: Callable[[TrainConfig], TrainConfig]) -> "Report":
        """Return the report with other settings in every training; gradient checks stay as they are."""
        lines = tuple(replace(line, config=line.config and change(line.config)) for line in self.lines)
        experiments = tuple(replace(one, configs=tuple(map(change, one.configs))) for one in self.experiments)
        return replace(self, lines=lines, experiments=experiments)


def report_names() -> list[str]:
    """Return the names of the reports that klcli carries, in their order."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in files("klcli.published").joinpath("reports").iterdir()
        if path.name.endswith(".toml")
    )


def report(name: str) -> Report:
    """Return one report. Raises ConfigError, which names those that are there."""
    if name not in report_names():
        raise ConfigError(f"report {name!r}: choose one of {', '.join(report_names())}")
    path = files("klcli.published").joinpath("reports").joinpath(f"{name}.toml")
    return parse(name, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Report:
    """Return the report of a TOML document. Raises ConfigError for what is none."""
    try:
        document = tomllib.loads(text)
        return _report(name, document)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"report {name}: this is no TOML ({error})") from None
    except KeyError as error:
        raise ConfigError(f"report {name}: the key {error} is missing") from None
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"report {name}: {error}") from None


def _report(name: str, document: dict[str, Any]) -> Report:
    tables = {key: document.get(key, []) for key in ("gradient_checks", "experiments", "commentary", "figures")}
    own = {key: [_as_published(one) for one in many if "as_published" in one] for key, many in tables.items()}
    artefacts = _assembled(name, document, own) if any(own.values()) else None
    return replace(_assembled(name, document, tables), as_published=artefacts)


def _as_published(table: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment or check under the conditions that its report's numbers come from."""
    rows = [{key: value for key, value in row.items() if key != "reason"} for row in table["rows"]]
    changed = {key: value for key, value in table.items() if key not in ("reason", "as_published")} | {"rows": rows}
    if "lambdas" in table:
        return changed | table["as_published"]
    return changed | {"config": table.get("config", {}) | table["as_published"], "is_chain": True}


def _assembled(name: str, document: dict[str, Any], tables: Mapping[str, Sequence[dict[str, Any]]]) -> Report:
    common = document.get("common", {})
    lines: list[Line] = []
    checks = []
    for table in tables["gradient_checks"]:
        config = replace(_config(common | table["config"]), dtype="float64")
        check = GradientExperiment(
            table["name"], config, tuple(map(float, table["lambdas"])), table.get("images", 10), table.get("dims", 30)
        )
        checks.append(check)
        lines += [line for row in table["rows"] for line in _checked(row, table, check)]
    experiments = []
    for table in tables["experiments"]:
        settings = common | table.get("config", {})
        trained = [line for row in table["rows"] for line in _trained(row, table, settings)]
        others = [_config(settings | {"lam": lam}) for lam in table.get("other_lambdas", [])]
        configs = dict.fromkeys([*(line.config for line in trained if line.config), *others])
        experiments.append(
            Experiment(table["name"], tuple(configs), table.get("repeats", 1), table.get("is_chain", False))
        )
        lines += trained
    for table in tables["commentary"]:
        words = {key: table[key] for key in ("row", "what", "reason")}
        lines.append(Line(quantity=None, published=None, **words))
    figures = []
    for table in tables["figures"]:
        figures.append(Figure(tuple(table["rows"]), _panels(table), tuple(table["experiments"])))
        numbered = {line.row for line in lines}
        lines += [
            Line(row=row, what=figures[-1].experiments[0], quantity=None, published=None, reason="a picture, no number")
            for row in figures[-1].rows
            if row not in numbered
        ]
    words = {key: document[key] for key in ("course", "date", "summary")}
    return Report(
        name=name,
        number=document["report"],
        lines=tuple(lines),
        experiments=tuple(experiments),
        gradient_checks=tuple(checks),
        figures=tuple(figures),
        conditions=document.get("conditions"),
        **words,
    )


def _trained(row: Mapping[str, Any], table: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the published numbers of one row of trainings."""
    own = {key: value for key, value in row.items() if key in _SETTINGS}
    _refuse_unknown(row, {"row", *WORDS, *RESULTS, *own})
    config = _config({**settings, **own})
    for quantity in RESULTS:
        if quantity in row:
            yield Line(
                row=row["row"],
                what=", ".join([table["name"], *(_setting(key, value) for key, value in own.items())]),
                quantity=quantity,
                published=float(row[quantity]),
                config=config,
                **_words(row, table),
            )


def _checked(row: Mapping[str, Any], table: Mapping[str, Any], check: GradientExperiment) -> Iterator[Line]:
    """Yield the published errors of one row of gradients."""
    _refuse_unknown(row, {"row", "tensor", *WORDS, *ERRORS})
    tensor = row.get("tensor")
    for quantity in ERRORS:
        if quantity in row:
            yield Line(
                row=row["row"],
                what=f"{check.name}, {tensor}" if tensor else check.name,
                quantity=quantity,
                published=float(row[quantity]),
                tensor=None if tensor is None else _key(tensor),
                check=check,
                **_words(row, table),
            )


def _words(row: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row.get(key, table.get(key)) for key in WORDS}


def _refuse_unknown(row: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(row) - known)
    if unknown:
        raise ConfigError(f"row {row.get('row')}: unknown key {', '.join(unknown)}")


def _config(settings: Mapping[str, Any]) -> TrainConfig:
    """Return the config of settings; a sigma that is common to a report is not one of its he and xavier."""
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}")
    values = dict(settings)
    if values.get("initializer", "he") != "normal":
        values.pop("sigma", None)
    return TrainConfig(**values | {"split": SplitConfig(**values.get("split", {}))})


def _panels(table: Mapping[str, Any]) -> str:
    panels = str(table["panels"])
    if panels not in PANELS:
        raise ConfigError(f"figure {', '.join(table['rows'])}: panels {panels!r}, choose one of {', '.join(PANELS)}")
    return panels


def _setting(key: str, value: Any) -> str:
    if key == "batch_norm":
        return "with BN" if value else "without BN"
    name = "lambda" if key == "lam" else key
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {json.dumps(value)}"


def _key(tensor: str) -> str:
    """`W1` is `linear1.W` in a network, `gamma1` `batch_norm1.gamma`."""
    name = tensor.rstrip("0123456789")
    owner = "linear" if name in ("W", "b") else "batch_norm"
    return f"{owner}{tensor.removeprefix(name)}.{name}"
