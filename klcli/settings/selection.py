"""Selection: the options of `klcli report`, validated before the database is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from klcli.errors import ConfigError
from klcli.settings.procedures import ALL, MEASURES, measures_of
from klcli.settings.run_names import parsed, parsed_study
from klcli.settings.setting import Role, Settings, flag, require, setting, settings_of
from klcli.text import command_text, storable

STATES = ("complete", "diverged", "interrupted", "failed", "running")
HOURS = {"h": 1, "d": 24, "w": 168}
DESCENDING = ("started_at", "finished_at", "id")  # and every accuracy: the newest or the best first
SHORT = {split: f"{split}_accuracy" for split in ("validation", "test", "train")} | {"run": "id", "bn": "batch_norm"}
VIEW, FILTER, PICTURES = "What to show", "Which runs", "Pictures and HTML report"  # panels of --help
VIEWS = ("best", "list_all", "runs", "study", "group_by", "gradchecks")
FILTERS = ("dataset", "images_of", "bn", "state", "since", "tagged", "where", "sort")
OF_PICTURES = ("to", "split", "width", "no_title")  # options that change a picture
# What is shown, and the options that have no effect on it.
IGNORED: dict[str, tuple[tuple[str, ...], str]] = {
    "runs": (FILTERS, "--run shows the named runs"),
    "study": (FILTERS, "--study shows one study"),
    "gradchecks": (FILTERS, "--gradchecks shows the latest check"),
    "plot": (FILTERS, "--plot draws the latest study or gradient check"),  # unless it draws runs
    "group_by": (("sort",), "--group-by sorts by mean validation accuracy"),
    "html": (
        ("best", "list_all", "study", "group_by", "gradchecks", "sort", "plot", *OF_PICTURES, "format"),
        "--html shows all views, or with --run those of runs",
    ),
    "dataset": (("images_of",), "--dataset selects the images"),
}
FORMATS = ("table", "markdown", "latex", "csv", "csv-semicolon", "json")
OF_STUDIES, OF_GRADIENTS = ("lambda", "sigma"), "gradients"  # kinds of pictures that show no single runs
SINGLE = ("rate", "weights", "confusion")  # kinds that draw one picture per run
KINDS = ("curves", "training", "bn", *SINGLE, *OF_STUDIES, OF_GRADIENTS)
SUFFIXES = (".png", ".svg", ".pdf")
SPLITS = ("train", "validation", "test")
OF_ONE_SPLIT = ("lambda", "confusion")  # kinds that show one split
OF_NO_SPLIT = ("rate", "weights", OF_GRADIENTS)
MOST_ROWS = 10**9


@dataclass(frozen=True, kw_only=True)
class Selection(Settings):
    """The view, its runs, their order and the format. Raises ConfigError if options contradict each other."""

    # fmt: off
    best: int | None = setting(None, VIEW, "Show the N best complete runs; without options, 10.",
        at_least=1, at_most=MOST_ROWS)
    list_all: bool = flag(VIEW, "List all runs in all states, the newest first.", option="--list")
    runs: tuple[str, ...] = setting((), VIEW, "Show these runs side by side: 7, 1-3, `last`, `best`, or -1 for the "
        "newest.", option="--run", metavar="RUN...")
    diff_only: bool = flag(VIEW, "With --run, show only the differences.")
    study: str | None = setting(None, VIEW, "Show the table of a search, a sweep, repeats or a reproduction: a number, "
        "`last` complete one, or -1 for the newest.", metavar="STUDY|last")
    group_by: tuple[str, ...] = setting((), VIEW, "Show mean, deviation and n over seeds, as `hidden,bn`, and which "
        "differences chance alone can explain.", metavar="COLUMN...")
    gradchecks: bool = flag(VIEW, "Show the latest gradient check.")
    measures: tuple[str, ...] = setting((), VIEW, "With --gradchecks, show these columns, as for gradcheck.",
        choices=(*MEASURES, ALL), metavar="NAME...")
    dataset: str | None = setting(
        None, FILTER, "Select runs on these images: cifar10, synthetic, or the start of a sha256.")
    images_of: str | None = setting(None, FILTER, "Select runs with the images and split of this run.", metavar="RUN")
    bn: bool | None = setting(None, FILTER, "Select runs with or without batch normalisation.")
    state: str | None = setting(None, FILTER, f"List runs that are {', '.join(STATES[:-1])} or {STATES[-1]}.",
        choices=STATES, metavar="STATE")
    since: str | None = setting(None, FILTER, "Select runs started since 2026-05-31 or 2026-05-31T14:00 in local time, "
        "with Z at the end in UTC as in tables, or 12h or 7d ago.", metavar="WHEN")
    tagged: str | None = setting(None, FILTER, "Select runs with this tag.", metavar="TAG")
    where: str | None = setting(None, FILTER, "Select runs by an SQL condition on the columns of runs: "
        "`--where 'lambda < 0.01 AND seed = 0'`.", metavar="SQL")
    sort: str | None = setting(None, FILTER, "Sort by this column; `seconds:desc` reverses it.", metavar="COLUMN")
    limit: int | None = setting(None, FILTER, "Show at most N rows.", at_least=1, at_most=MOST_ROWS)
    format: str = setting("table", Role.OUTPUT, "Print the table in this format; csv and json keep every digit, "
        "csv-semicolon has a decimal comma as well.", choices=FORMATS)
    plot: tuple[str, ...] = setting((), PICTURES, "Draw curves of one run, or of several over one another with a band "
        "for seeds; training, those of each setting alone; bn, one network with and without it; rate; weights of the "
        "first layer; confusion; lambda and sigma of a study; gradients.", choices=KINDS, metavar="KIND...")
    to: Path | None = setting(
        None, PICTURES, "Write --plot to this .png, .svg or .pdf instead of one in plots/; several get its name and "
        "their own.", metavar="FILE")
    split: tuple[str, ...] = setting((), PICTURES, "Draw the metrics of these images; the test set has one number, "
        "after the training.", choices=SPLITS, metavar="SPLIT...")
    width: float | None = setting(None, PICTURES, "Draw --plot this many centimetres wide with letters of 9 pt, for a "
        "document.", at_least=5, at_most=100, example="16", metavar="CM")
    no_title: bool = flag(PICTURES, "Omit the title and the settings, for a document with a caption of its own.")
    html: Path | None = setting(
        None, PICTURES, "Write all tables and pictures into one page, with --run those of these runs.", metavar="FILE")
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        # As in the database: no column holds a byte that is not UTF-8.
        for name in ("dataset", "tagged", "where", "sort"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, storable(value))
        views = [*map(_option, self._given(VIEWS))]
        require(len(views) < 2, f"{' and '.join(views[:2])}: one view at a time")
        self._check_pictures()
        if self.study is not None:
            parsed_study(self.study, "--study")
        for name in self.runs:
            parsed(name, "--run")
        if self.images_of is not None:
            parsed(self.images_of, "--images-of")
        _ = self.order, self.started_since  # both raise if they cannot be parsed

    def unused(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        if not self.runs:
            found["diff_only"] = "runs", "it compares runs, give at least two with --run"
        if not self.is_about_gradients:
            found["measures"] = "gradchecks", "these are columns of a gradient check, add --gradchecks"
        if not self.plot:
            found |= dict.fromkeys(OF_PICTURES, ("plot", "there is no picture, choose its kind with --plot"))
        draws_runs = not (self.is_about_studies or self.is_about_gradients)
        for shown, (ignored, why) in IGNORED.items():
            if self._given([shown]) and not (shown == "plot" and draws_runs):
                found |= dict.fromkeys(self._given(ignored), (shown, f"{why}, omit one of them"))
        ranked = self._given(("best", "group_by", "html"))
        if ranked and self.is_list and "state" not in found:
            cure = "give --list" if self.html is None else f"give --where \"state = '{self.state}'\""
            found["state"] = "list_all", f"{_option(ranked[0])} ranks complete runs, {cure}"
        return found

    def _check_pictures(self) -> None:
        """Refuse pictures that do not belong to the view."""
        kinds = " ".join(self.plot)
        if self.to is not None:
            endings = f"--to {self.to}: the name must end in {', '.join(SUFFIXES)}"
            require(self.to.suffix.lower() in SUFFIXES, endings)
        splits = f"--split {' '.join(self.split)}: "
        for kind in self.plot if self.split else ():
            require(kind not in OF_NO_SPLIT, f"{splits}--plot {kind} shows no split of the images, omit it")
            one = f"{splits}--plot {kind} shows one split, give only {self.split[0]}"
            require(kind not in OF_ONE_SPLIT or len(self.split) == 1, one)
        for kind in self.plot if self.has_view else ():
            needs_study = kind in OF_STUDIES and self.study is None
            require(not needs_study, f"--plot {kind}: draws a study, name it with --study")
            is_drawn = (kind == OF_GRADIENTS) == self.gradchecks
            require(is_drawn, f"--plot {kind}: --gradchecks draws only --plot gradients, and no other view does")
        subjects = {kind if kind in (*OF_STUDIES, OF_GRADIENTS) else "runs" for kind in self.plot}
        is_one = len(subjects) < 2 or self.has_view
        require(is_one, f"--plot {kinds}: these show different things, give one kind or name a view")

    def command(self, **instead: Any) -> str:
        """Return the command of this view and its filters, without format, pictures and database."""
        values, words = vars(self) | instead, ["klcli", "report"]
        for name, one in settings_of(Selection).items():
            if one.role in (VIEW, FILTER) and values[name] != one.default:
                words += one.arguments(values[name])
        return command_text(words)

    def _given(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if getattr(self, name) != settings_of(Selection)[name].default]

    @property
    def is_csv(self) -> bool:
        """Whether the output is for another program, which gets all rows."""
        return self.format.startswith("csv")

    @property
    def shown_measures(self) -> tuple[str, ...]:
        """The measures of a gradient check: those asked for; else all for another program, and few for a person."""
        return measures_of(self.measures or (ALL if self.is_csv or self.format == "json" else MEASURES[0],))

    @property
    def is_about_studies(self) -> bool:
        """Whether --plot alone asks for the latest search or sweep."""
        return bool(self.plot) and not self.has_view and self.plot[0] in OF_STUDIES

    @property
    def is_about_gradients(self) -> bool:
        return self.gradchecks or (not self.has_view and OF_GRADIENTS in self.plot)

    @property
    def has_view(self) -> bool:
        return bool(self._given(VIEWS))

    @property
    def is_list(self) -> bool:
        """Whether runs of any state are listed instead of ranked."""
        return self.list_all or self.state not in (None, "complete")

    @property
    def order(self) -> tuple[str, bool] | None:
        """The column of --sort, and whether the order is descending."""
        if self.sort is None:
            return None
        name, _, direction = self.sort.partition(":")
        column = SHORT.get(name, name)
        require(bool(name.strip()), f"--sort {self.sort!r}: give a column of runs, for example seconds")
        require(direction in ("", "asc", "desc"), f"--sort {self.sort}: give asc or desc after the colon")
        usual = column.endswith("accuracy") or column in DESCENDING
        return column, direction == "desc" if direction else usual

    @property
    def started_since(self) -> str | None:
        """The time of --since, given as a date, a time or an age, in the format of the database: UTC, to the second."""
        if self.since is None:
            return None
        number, unit = self.since[:-1], self.since[-1:]
        try:
            if unit in HOURS and number.isdigit():
                moment = datetime.now(UTC) - timedelta(hours=int(number) * HOURS[unit])
            else:
                moment = datetime.fromisoformat(self.since).astimezone(UTC)  # without a time zone, the local one
        except (ValueError, OverflowError, OSError):  # the last one on Windows, for local times before 1970
            usage = "give a date as 2026-05-31, a time as 2026-05-31T14:00, or 7d"
            raise ConfigError(f"--since {self.since!r}: {usage}") from None
        return moment.isoformat(timespec="seconds")


def _option(name: str) -> str:
    return settings_of(Selection)[name].option
