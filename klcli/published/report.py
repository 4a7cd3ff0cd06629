"""Published reports: their experiments and numbers, read from reports/*.toml, one file per report."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from klcli.errors import ConfigError
from klcli.published.format.schema import CONCLUSIONS, ERRORS, PANELS, REMARKS, RESULTS, ROWS
from klcli.published.quirks import QUIRKS
from klcli.settings.procedures import CheckSettings
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import require, value_of
from klcli.settings.train_config import TrainConfig
from klcli.studies.plans import repeat
from klcli.studies.statistics import Sample

Row = dict[str, Any]  # a table of the TOML document
DIGITS = 4  # significant digits of a setting in the description of a line


@dataclass(frozen=True, kw_only=True)
class Line:
    """One published number, or the reason why there is none."""

    row: str  # of the report's tables and figures: 003-T3
    what: str  # which experiment: `coarse search of lambda, lambda 0.004237`
    quantity: str | None = None  # of RESULTS, ERRORS or CONCLUSIONS; None without a number
    published: float | None = None
    reason: str | None = None  # why there is no number, or why ours is another
    note: str | None = None  # a remark that the reader needs
    if_differs: str | None = None  # the known difference from ours
    config: TrainConfig | None = None  # the training behind it, of the first seed
    method: str = ""  # of the experiment behind it
    variant: str | None = None  # `as the text says`: shown, but not counted with the others
    tensor: str | None = None  # the gradient behind it, by its key in a network
    check: "GradientExperiment | None" = None
    conclusion: "Conclusion | None" = None
    tolerance: float | None = None  # the smallest difference that matters, if not that of intervals.py
    same_validation_images: bool = True  # whether the report divided the training images as its config does


@dataclass(frozen=True)
class Conclusion:
    """What a report says about several trainings; a claim has no published number, but a bound."""

    experiments: tuple[str, ...]
    quantity: str = "validation_accuracy"
    claim: str | None = None  # `above` or `below` the published number


@dataclass(frozen=True)
class Experiment:
    """Trainings of one kind."""

    name: str
    configs: tuple[TrainConfig, ...]  # of the first seed, in the order of the rows
    repeats: int = 1  # minimum number of seeds
    is_chain: bool = False  # each training starts from the weights of the previous one
    quirks: tuple[str, ...] = ()  # of quirks.QUIRKS
    study: str = ""  # of its own; the chains of one study continue each other

    @property
    def method(self) -> str:
        """What sets its trainings apart from others with the same settings: quirks, a warm start, its own study."""
        own = f"warm-started {self.study or self.name}" if self.is_chain else self.study
        return joined(*self.quirks, own)

    @property
    def method_words(self) -> str | None:
        """The sentence about the method in each of its lines."""
        code = f"as the code: {', '.join(self.quirks)}" if self.quirks else None
        through = f", through {self.study}" if self.study else ""
        chain = f"each training begins with the weights of the one before{through}" if self.is_chain else None
        return joined(code, chain) or None


@dataclass(frozen=True)
class GradientExperiment:
    """One network whose gradients are checked with several lambdas."""

    name: str
    config: TrainConfig
    lambdas: tuple[float, ...]
    settings: CheckSettings
    repeats: int = 1  # draws of the weights

    def networks(self) -> list[tuple[TrainConfig, ...]]:
        return [(replace(one, lam=lam),) for lam in self.lambdas for one in repeat(self.config, self.repeats)]


@dataclass(frozen=True)
class Figure:
    """A figure of a report: its rows and panels."""

    rows: tuple[str, ...]
    panels: str  # of PANELS
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One line of a report, with our result."""

    line: Line
    verdict: str
    why: str  # the reason, the known difference, or a remark that the reader needs; may be empty
    ours: Sample | None = None  # over the seeds that did not diverge; of a gradient, its one error or its drawn sizes
    diverged: int = 0
    margin: float | None = None  # half of the prediction interval, which decides
    tolerance: float | None = None
    failed: bool = False  # whether klcli's own gradient is wrong

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, of a training or of a conclusion about trainings."""
        has_size = self.line.check or self.line.quantity == "lambda"
        published = None if has_size else self.line.published
        return None if self.ours is None or published is None else self.ours.mean - published


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
    conditions: str | None = None  # the version that klcli runs if its text and its code differ
    text: str = field(default="", repr=False)  # the document

    @property
    def title(self) -> str:
        return f"report {self.number}, {self.course}, {self.date}"

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line.row for line in self.lines))

    def only(self, rows: Sequence[str]) -> "Report":
        """Return the report with only these rows, by name or prefix (`T1` is `003-T1`); without any, all of them."""
        kept: set[str] = set()
        for wanted in rows:
            name = f"{self.number}-{wanted.removeprefix(f'{self.number}-')}"
            found = {name} & set(self.rows) or {row for row in self.rows if row.startswith(name)}
            require(bool(found), f"--only {wanted}: report {self.name} has no such row, it has {', '.join(self.rows)}")
            kept |= found
        if not rows or kept == {*self.rows}:  # also trainings that a figure alone shows
            return self
        lines = tuple(line for line in self.lines if line.row in kept)
        checks, trained = {line.check for line in lines}, {(line.method, line.config) for line in lines}
        whole = {name for line in lines if line.conclusion for name in line.conclusion.experiments}
        silent = kept - {line.row for line in lines if line.config or line.check or line.conclusion}
        whole |= {name for one in self.figures if silent & {*one.rows} for name in one.experiments}
        experiments = list[Experiment]()
        for one in reversed(self.experiments):  # a chain needs all trainings before its last one, also those of others
            left = tuple(config for config in one.configs if (one.method, config) in trained)
            if one.name in whole or (one.is_chain and any(one.method == later.method for later in experiments)):
                left = one.configs
            elif one.is_chain and left:
                left = one.configs[: one.configs.index(left[-1]) + 1]
            experiments = [replace(one, configs=left), *experiments] if left else experiments
        return replace(
            self, lines=lines, experiments=tuple(experiments),
            gradient_checks=tuple(one for one in self.gradient_checks if one in checks),
            figures=tuple(one for one in self.figures if kept & set(one.rows)),
        )  # fmt: skip

    def with_configs(self, change: Callable[[TrainConfig], TrainConfig]) -> "Report":
        """Return the report with other settings in every training; gradient checks stay as they are."""
        lines = tuple(replace(line, config=line.config and change(line.config)) for line in self.lines)
        experiments = tuple(replace(one, configs=tuple(map(change, one.configs))) for one in self.experiments)
        return replace(self, lines=lines, experiments=experiments)


def report_names() -> list[str]:
    """Return the names of the reports in klcli, in order."""
    return sorted(path.name.removesuffix(".toml") for path in _FOLDER.iterdir() if path.name.endswith(".toml"))


def report(name: str) -> Report:
    """Return one report. Raises ConfigError, which lists the known names."""
    known = f"choose one of {', '.join(report_names())}, or a file that ends in .toml"
    require(name in report_names(), f"report {name!r}: {known}")
    return parse(name, _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8"))


_FOLDER = files("klcli.published").joinpath("reports")


def parse(name: str, text: str) -> Report:
    """Return the report of a TOML document. Raises ConfigError if the document is no report."""
    try:
        document = tomllib.loads(text)
        return replace(_assembled(name, document), text=text)
    except (tomllib.TOMLDecodeError, KeyError, ConfigError, TypeError) as error:
        words = {tomllib.TOMLDecodeError: f"this is not TOML ({error})", KeyError: f"the key {error} is missing"}
        raise ConfigError(f"report {name}: {words.get(type(error), error)}") from None


def _with_variants(tables: Sequence[Row]) -> Iterator[Row]:
    """Yield every experiment, then its variant: the keys of `variant` replace its own, and those of its `config` too.

    The remarks of the experiment and of its rows say nothing of the variant.
    """
    for table in tables:
        yield table
        if variant := table.get("variant"):
            rows = [{key: value for key, value in row.items() if key not in REMARKS} for row in table["rows"]]
            left_out = ("variant", "study", *REMARKS)
            rest = {key: value for key, value in table.items() if key not in left_out} | {"rows": rows}
            own = {"config": table.get("config", {}) | variant.get("config", {})}
            named = {"name": f"{table['name']}, {variant['name']}", "variant_name": variant["name"]}
            yield rest | variant | own | named


def _assembled(name: str, document: Row) -> Report:
    tables = {key: document.get(key, []) for key in ("gradient_checks", "commentary", "conclusions", "figures")}
    lines, experiments, checks, figures = [], [], [], []
    common = document.get("common", {})
    for table in tables["gradient_checks"]:
        config = _config(common | table["config"] | {"dtype": "float64"})
        settings = CheckSettings(**{key: table[key] for key in ("images", "dims", "h", "method") if key in table})
        lambdas = tuple(map(float, table["lambdas"]))
        check = GradientExperiment(table["name"], config, lambdas, settings, table.get("repeats", 1))
        checks.append(check)
        for row in table["rows"]:  # of one tensor, or the largest error of all tensors
            tensor = row.get("tensor")
            what = f"{check.name}, {tensor}" if tensor else check.name
            lines += _lines(row, table, ERRORS, what=what, tensor=tensor and _key(tensor), check=check)
    for table in _with_variants(document.get("experiments", [])):
        shared = common | table.get("config", {})
        # In the order of training, which a chain depends on.
        configs = dict.fromkeys(_config(shared | {"lam": lam}) for lam in table.get("lambdas", []))
        how = {key: table[key] for key in ("repeats", "is_chain", "study") if key in table}
        experiment = Experiment(table["name"], (), quirks=tuple(table.get("quirks", ())), **how)
        unknown = ", ".join(sorted({*experiment.quirks} - {*QUIRKS}))
        require(not unknown, f"{table['name']}: unknown quirk {unknown}, choose from {', '.join(QUIRKS)}")
        about = {"method": experiment.method, "variant": table.get("variant_name")}
        for row in table["rows"]:  # every key that is neither a number nor a remark is a setting
            own = {key: value for key, value in row.items() if key not in ROWS["experiments"]}
            config = _config(shared | own)
            what = ", ".join([table["name"], *(_phrase(config, key) for key in setting_keys(own))])
            trained = _lines(row, table, RESULTS, what=what, config=config, **about)
            lines += [replace(one, note=joined(experiment.method_words, one.note) or None) for one in trained]
            configs |= dict.fromkeys(line.config for line in trained if line.config)
        experiments += [replace(experiment, configs=tuple(configs))] if configs else []
    lines += [Line(**{key: table[key] for key in ("row", "what", "reason")}) for table in tables["commentary"]]
    lines += [line for table in tables["conclusions"] for line in _conclusion(table)]
    lines = [replace(one, same_validation_images=document.get("same_validation_images", True)) for one in lines]
    for table in tables["figures"]:
        rows, panels, shown = tuple(table["rows"]), table["panels"], tuple(table["experiments"])
        require(panels in PANELS, f"figure {', '.join(rows)}: panels {panels!r}, choose one of {', '.join(PANELS)}")
        silent, reason = [row for row in rows if row not in {line.row for line in lines}], table.get("reason")
        lines += [Line(row=row, what=shown[0], reason=reason or "a picture, no number") for row in silent]
        figures.append(Figure(rows, panels, shown))
    about = {key: document[key] for key in ("course", "date", "summary")} | {"conditions": document.get("conditions")}
    return Report(
        name=name, number=document["report"], lines=tuple(lines), experiments=tuple(experiments),
        gradient_checks=tuple(checks), figures=tuple(figures), **about,
    )  # fmt: skip


def joined(*remarks: str | None) -> str:
    """Return the remarks that are not empty, as one."""
    return "; ".join(filter(None, remarks))


def _lines(row: Row, table: Row, quantities: Iterable[str], **more: Any) -> list[Line]:
    more |= {key: row.get(key, table.get(key)) for key in (*REMARKS, "tolerance")} | {"row": row["row"]}
    found = [Line(quantity=key, published=float(row[key]), **more) for key in quantities if key in row]
    alone = [Line(**more | {"config": None, "check": None})] if more["reason"] else []  # it trains and checks nothing
    return found or alone


def _conclusion(table: Row) -> list[Line]:
    kind, known = table["kind"], ", ".join(CONCLUSIONS)
    # Also in the text that a newer klcli has stored with a study.
    require(kind in CONCLUSIONS, f"conclusion {table['row']}: kind {kind!r}, choose one of {known}")
    claim = next((key for key in ("above", "below") if key in table), None)
    about = Conclusion(tuple(table["experiments"]), table.get("quantity", "validation_accuracy"), claim)
    bound = claim or "published"
    given = table | ({kind: table[bound]} if bound in table else {})  # contradictions.py names one that is missing
    return _lines(given, {}, (kind,), what=table["what"], conclusion=about)


def _config(settings: Row) -> TrainConfig:
    # he and xavier do not take the common sigma of a report
    is_normal = settings.get("initializer") == "normal"
    return TrainConfig.from_values({key: value for key, value in settings.items() if is_normal or key != "sigma"})


def setting_keys(settings: Row) -> Iterator[str]:
    """Yield the key of each setting, `split.subset` for one in the table `split`."""
    for key, value in settings.items():
        yield from [f"split.{own}" for own in value] if key == "split" else [key]


def _phrase(config: TrainConfig, key: str) -> str:
    value = value_of(config, key)
    if key == "batch_norm":
        return "with BN" if value else "without BN"
    return SETTINGS[key].phrase(float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value)


def _key(tensor: str) -> str:
    """Return the key of a tensor in a network: `linear1.W` for `W1`, `batch_norm1.gamma` for `gamma1`."""
    name = tensor.rstrip("0123456789")
    owner = "linear" if name in ("W", "b") else "batch_norm"
    return f"{owner}{tensor.removeprefix(name)}.{name}"
