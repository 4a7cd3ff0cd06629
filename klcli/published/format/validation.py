"""Validation: names every mistake in the document of a report, each with its line and the cure."""

import difflib
import re
import tomllib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import Any

from klcli.errors import ConfigError
from klcli.published.format.contradictions import AT_THE_END, BEST, contradictions
from klcli.published.format.places import Path, places
from klcli.published.format.schema import DOCUMENT, ERRORS, FRACTION, REMARKS, RESULTS, ROWS, TABLES, VARIANT, Key
from klcli.published.report import Row, parse, setting_keys
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Setting
from klcli.settings.train_config import TrainConfig
from klcli.text import visible
from klcli.training.budget import require_trainable

SHOWN = 40  # characters of a value in a message
# The settings of a report, by key: without the seeds, which --repeats varies, and the name of a preset. The seed of
# its split may be that of the report.
_OWN = {key: one for key, one in SETTINGS.items() if "." in key or not (one.is_seed or one.is_name)}
_OPTIONS = {one.option: key.rpartition(".")[2] for key, one in _OWN.items()}
Known = Mapping[str, Any]  # what a table may have: a Key, a Setting, or a table of such
SPLIT: Known = {key.partition(".")[2]: one for key, one in _OWN.items() if "." in key}
TRAINING: Known = {key: one for key, one in _OWN.items() if "." not in key} | {"split": SPLIT}
# Other words for a setting: its option, its label and its column.
_WORDS = {
    word: key
    for key, one in _OWN.items()
    if "." not in key
    for word in (one.column, one.label.replace(" ", "_"), one.option.lstrip("-").replace("-", "_"), key)
}


@dataclass(frozen=True)
class Mistake:
    """One mistake: its line in the file, the table or row, and what is wrong."""

    line: int
    where: str  # experiments 2, row 3; empty for the document itself
    words: str

    def __str__(self) -> str:
        return visible(": ".join(filter(None, (str(self.line), self.where, self.words))))


def mistakes(text: str) -> list[Mistake]:
    """Return every mistake of a document, by line; none if it is a report that klcli can reproduce."""
    try:
        document, lines = tomllib.loads(text), places(text)
    except RecursionError:
        return [Mistake(1, "", "this nests too deeply for a report")]
    except ValueError as error:  # also a whole number of 5000 digits, which is no TOMLDecodeError
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        return [Mistake(line, "", f"this is not TOML: {str(error).partition(' (at ')[0]}")]
    checker = _Checker(document, lines)
    checker.check()
    if not checker.found:
        for path, words in contradictions(document, parse("report", text)):
            checker.say(path, words)
    # Mistakes of one line as found: a misspelt key before the key or number that is missing because of it.
    return sorted(checker.found, key=lambda one: one.line)


class _Checker:
    """Walks through a document that is TOML; `found` collects its mistakes."""

    def __init__(self, document: Row, lines: Mapping[Path, int]) -> None:
        self.document, self.lines, self.found = document, lines, list[Mistake]()
        self.idle, self.used = dict[Path, str](), set[Path]()  # settings without an effect on a training, and with one
        self.unsound = set[Path]()  # what has a mistake, or something in it

    def say(self, path: Path, words: str) -> None:
        known = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1)
        where = [f"{name} {index + 1}" for name, index in pairwise(path) if isinstance(index, int)]
        if where and len(path) > 2 and path[2] in ("config", "variant"):
            where.append(str(path[2]))
        elif path[:1] == ("common",) != path:
            where = ["common"]
        self.unsound |= {path[:n] for n in range(len(path) + 1)}
        self.found.append(Mistake(known, ", ".join(where[:2]).replace("rows ", "row "), words))

    def check(self) -> None:
        sound = self._sound((), self.document, DOCUMENT, "table or key")
        common = self._sound(("common",), sound.get("common", {}))
        rows = list[str]()
        names: dict[str, str] = {}  # of the experiments and checks, each with its kind
        for kind, keys in TABLES.items():  # the figures, which name rows and experiments, are the last
            for path, table in self._tables((kind,), sound.get(kind, [])):
                own = self._sound(path, table, keys, "key")
                if (name := own.get("name")) in names:
                    self.say((*path, "name"), f"a second {_shown(name)}: give every experiment and check its own name")
                if kind == "figures":
                    self._figure(path, own, rows, [one for one, of in names.items() if of == "experiments"])
                elif kind in ("commentary", "conclusions"):
                    rows += self._row_name(path, own)
                    self._experiments(path, own, [one for one, of in names.items() if of == "experiments"])
                else:
                    names |= {name: kind} if name else {}
                    rows += self._numbers(path, own, common)
        if not any(self.document.get(kind) for kind in (*ROWS, "conclusions", "commentary")):
            self.say((), "no row: give [[experiments]], [[gradient_checks]] or [[commentary]]")
        unused = {path: words for path, words in self.idle.items() if path not in self.used}
        for path, words in unused.items() if not self.found else ():  # what has a mistake may need one of them
            self.say(path, words)

    def _tables(self, path: Path, values: Sequence[Any]) -> Iterator[tuple[Path, Row]]:
        for index, value in enumerate(values):
            if isinstance(value, dict):
                yield (*path, index), value
            else:
                self.say((*path, index), f"{_shown(value)}: must be a table, as {{ row = ... }}")

    def _sound(self, path: Path, table: Row, known: Known = TRAINING, what: str = "setting") -> Row:
        """Return the sound values of a table; name unknown and missing keys, and refused values."""
        sound: Row = {}
        for key, value in table.items():
            here, rule = (*path, key), known.get(key)
            if rule is None:
                is_seed = key in SETTINGS and SETTINGS[key].is_seed
                seeds = f"{key}: the seeds are those of --repeats, omit it"
                self.say(here, seeds if is_seed else f"no {what} `{key}`{_meant(key, known)}")
            elif isinstance(rule, Setting):
                try:  # the message names the key of the file, not the option
                    sound[key] = replace(rule, option=key).checked(value)
                except ConfigError as error:
                    self.say(here, str(error))
            elif isinstance(rule, Key):
                if rule.kind.accepts(value):
                    sound[key] = value
                else:
                    percent = " (a percentage divided by 100)" if rule.kind is FRACTION else ""
                    self.say(here, f"{key} = {_shown(value)}: must be {rule.kind.words}{percent}")
            elif isinstance(value, dict):
                sound[key] = self._sound(here, value, rule)
            else:
                self.say(here, f"{key} = {_shown(value)}: must be a table of settings")
        unknown = [key for key in table if key not in known]
        for key, rule in known.items():
            if isinstance(rule, Key) and rule.is_required and key not in table:
                misspelt = difflib.get_close_matches(key, unknown, n=1)  # on a later line than the table, and the cause
                self.say((*path, *misspelt), f"the key `{key}` is missing: {rule.meaning}")
        return sound

    def _numbers(self, path: Path, table: Row, common: Row) -> list[str]:
        """Check the settings and rows of an experiment or of a gradient check; return the names of the rows."""
        kind, names = str(path[0]), list[str]()
        seen = dict[Hashable, Path]()  # the first place of each number
        is_check, of_table, of_variant = kind == "gradient_checks", (*path, "config"), (*path, "variant", "config")
        own = self._sound(of_table, table.get("config", {}))
        layers: dict[Path, Row] = {("common",): common, of_table: own}  # of settings, the strongest last
        variant = self._sound((*path, "variant"), table["variant"], VARIANT, "key") if "variant" in table else {}
        otherwise = self._sound(of_variant, variant.get("config", {}))
        config = self._config(of_table, layers) if is_check else None
        if not is_check and "lambdas" in table:  # these trainings have the settings of no row
            self._config((*path, "lambdas"), layers)
        if "lambdas" in variant or ("lambdas" in table and otherwise):
            self._config(of_variant, layers | {of_variant: otherwise})
        known, what = (ROWS[kind], "key") if is_check else ({**ROWS[kind], **TRAINING}, "setting or number")
        numbers = [*(ERRORS if is_check else RESULTS)]
        for here, row in self._tables((*path, "rows"), table.get("rows", [])):
            sound = self._sound(here, row, known, what)
            settings = {key: value for key, value in sound.items() if key in TRAINING}
            names += self._row_name(here, sound)
            if "tensor" in sound:
                self._tensor((*here, "tensor"), sound["tensor"], common | own)
            if not is_check:
                config = self._config(here, layers | {here: settings})
            if config and otherwise:
                self._config(of_variant, layers | {of_variant: otherwise, here: settings})
            if not row.keys() & {*numbers, "reason"} and "reason" not in table:
                unknown = [key for key in row if key not in known]
                cure = f"give a number, as `{numbers[0]} = ...`, or the `reason`"
                self.say((*here, *unknown[-1:]), f"no number and no reason: {cure}")
            if BEST in row and config and config.evaluations_per_cycle == 0:
                self.say((*here, BEST), f"{BEST}: {AT_THE_END}")
            if config is None or here in self.unsound:
                continue
            remarks = tuple(row.get(key) for key in REMARKS)  # may tell two numbers apart, as of the text and of a log
            for key in [key for key in numbers if key in row] or ["reason"]:
                first = seen.setdefault((row["row"], row.get("tensor"), config, remarks, key), here)
                if first != here:
                    cure = "omit one of them, or tell them apart by a `note`"
                    self.say((*here, key), f"a second {key} of {row['row']}, as row {int(first[-1]) + 1}: {cure}")
        return names

    def _row_name(self, path: Path, row: Row) -> list[str]:
        number, name = self.document.get("report"), row.get("row")
        if name is None:
            return []
        if isinstance(number, str) and not name.startswith(f"{number}-"):
            self.say((*path, "row"), f"row {name!r}: must begin with the number of the report, as {number}-{name}")
        return [name]

    def _config(self, path: Path, layers: Mapping[Path, Row]) -> TrainConfig | None:
        """Check that settings, in layers of which the last is the strongest, go together and leave images.

        None if they do not, or if one of them has a mistake of its own.
        """
        if not self.unsound.isdisjoint(layers):
            return None
        settings, places = Row(), dict[str, Path]()
        for place, own in layers.items():
            settings |= own
            places |= {key: (*place, *key.split(".")) for key in setting_keys(own)}
        if settings.get("initializer") != "normal" and places.get("sigma") == ("common", "sigma"):
            del settings["sigma"], places["sigma"]  # he and xavier do not take the common sigma
        try:
            config = TrainConfig.from_values(settings)
            require_trainable(config)
        except ConfigError as error:
            words = _with_keys(str(error))
            if places.get(key := words.partition(" ")[0]) == ("common", key):  # others may need it
                words = words.replace("omit it", f"give {key} = {_shown(SETTINGS[key].default)}")
            self.say(path, words)
            return None
        unused = config.unused()
        self.used |= {place for key, place in places.items() if key not in unused}
        self.idle |= {places[key]: f"{key}: no effect, {_with_keys(unused[key][1])}" for key in unused if key in places}
        return config

    def _tensor(self, path: Path, tensor: str, settings: Row) -> None:
        layers = len(settings.get("hidden", TrainConfig().hidden)) + 1
        known = [f"{name}{k}" for k in range(1, layers + 1) for name in ("W", "b")]
        if settings.get("batch_norm"):
            known += [f"{name}{k}" for k in range(1, layers) for name in ("gamma", "beta")]
        if tensor not in known:
            self.say(path, f"no tensor {_shown(tensor)} in this network: it has {', '.join(known)}")

    def _figure(self, path: Path, table: Row, rows: list[str], experiments: list[str]) -> None:
        for index, row in enumerate(table.get("rows", [])):
            if "reason" in table:
                self._row_name((*path, "rows", index), {"row": row})
            elif row not in rows:
                cure = "a figure without numbers needs a `reason`"
                self.say((*path, "rows", index), f"no row {_shown(row)} above{_meant(row, rows) or f': {cure}'}")
        self._experiments(path, table, experiments)

    def _experiments(self, path: Path, table: Row, known: list[str]) -> None:
        for index, name in enumerate(table.get("experiments", [])):
            if name not in known:
                self.say((*path, "experiments", index), f"no experiment {_shown(name)}{_meant(name, known)}")


def _with_keys(message: str) -> str:
    """Return a message with the keys of the file in the place of options."""
    return re.sub(r"--[a-z][a-z-]*", lambda one: _OPTIONS.get(one[0], one[0]), message)


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, date) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _meant(word: Any, known: Iterable[str]) -> str:
    """Return the suggestion for an unknown name, also of a setting by its option: lambda for lam."""
    among = {name: name for name in known}
    among |= {other: key for other, key in _WORDS.items() if key in among}
    close = difflib.get_close_matches(str(word), among, n=1, cutoff=0.6)
    return f", did you mean `{among[close[0]]}`?" if close else ""
