"""Registration: the plan of a reproduction, fixed and stored before its first training, and what deviates from it.

Whoever sees a result and then changes seeds, settings or published numbers can make any report agree. Every study of a
reproduction therefore holds the text of the report and one SHA-256 of the whole plan, and a table says whether the
database has an earlier plan.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from klcli.errors import ConfigError
from klcli.published import report as published
from klcli.published.report import Report
from klcli.settings.sameness import SETTINGS, differences, without_seeds, without_seeds_in_split
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Study
from klcli.store.studies import PLAN_SHA256, TEXT

SHOWN = 3  # settings or rows that a line names


def registered(report: Report, trainings: Iterable[TrainConfig], dataset_sha256: str) -> dict[str, str]:
    """Return what the studies of a reproduction store besides their own plans: the text, and the hash of the whole."""
    whole = {"report": report.text, "rows": report.rows, "trainings": [*map(asdict, trainings)]}
    canonical = json.dumps(whole | {"dataset_sha256": dataset_sha256}, sort_keys=True)
    return {TEXT: report.text, PLAN_SHA256: sha256(canonical.encode()).hexdigest()}


def registered_report(study: Study) -> Report:
    """Return the report of a study as its plan has it; of a study of an older klcli, the one in klcli."""
    name, text = study.settings["report"], study.settings.get(TEXT)
    return published.parse(name, text) if text else published.report(name)


def plan_notes(mine: Sequence[Study], every: Sequence[Study]) -> list[str]:
    """Return the notes on the plan of a reproduction, of its studies: its hash, and what deviates from an earlier one.

    The first plan of the same report, rows and images counts, because no result had been seen before it.
    """
    hashes = [one.settings[PLAN_SHA256] for one in mine if PLAN_SHA256 in one.settings]
    if not hashes:
        return []
    hashed = " and ".join(dict.fromkeys(hashes))
    begin = min(mine, key=_moment)
    notes = [f"plan: sha256 {hashed}, stored in study {begin.id} before the first training"]
    before = [one for one in every if one.kind == begin.kind and _moment(one) < _moment(begin)]
    alike = [one for one in before if PLAN_SHA256 in one.settings and _subject(one) == _subject(begin)]
    if alike and (first := alike[0]).settings[PLAN_SHA256] not in hashes:
        together = [one for one in alike if one.settings[PLAN_SHA256] == first.settings[PLAN_SHA256]]
        what = "; ".join(_changes(together, mine)) or "its text"
        notes.append(f"deviates from the plan of study {first.id}, of {first.created_at[:10]}: {what}")
    return notes


def _moment(study: Study) -> tuple[str, int]:
    return study.created_at, study.id


def _subject(study: Study) -> tuple[Any, ...]:
    """What two plans have in common if one can deviate from the other; the name is that of the file, without a hash."""
    settings, file = study.settings, re.sub(r"-[0-9a-f]{8}$", "", study.settings["report"])
    return file, subset_of(study), *(settings.get(key) for key in ("rows", "quick", "dataset_sha256"))


def subset_of(study: Study) -> int | None:
    """The --subset of a reproduction, None if the report itself trained on that part of the images."""
    subset: int | None = study.settings["plan"][0].get("split", {}).get("subset")
    if subset is not None:
        with suppress(ConfigError):  # another klcli wrote the text
            experiments = registered_report(study).experiments
            if subset in {config.split.subset for one in experiments for config in one.configs}:
                return None
    return subset


def _changes(before: Sequence[Study], after: Sequence[Study]) -> Iterator[str]:
    """Yield what differs, in words: seeds, settings, and the numbers, remarks and checks of the report."""
    try:
        old, new = (
            [*dict.fromkeys(TrainConfig.from_values(plan) for study in studies for plan in study.settings["plan"])]
            for studies in (before, after)  # each training once, though the same plan may have begun twice
        )
        texts = [registered_report(one[0]).only(one[0].settings["rows"]) for one in (before, after)]
    except ConfigError:
        yield "another klcli wrote it, which had other settings or another format"
        return
    was, now = (one[0].settings["vary"] for one in (before, after))
    key = without_seeds if "split" in (was, now) else without_seeds_in_split
    divisions = {key(one).split for one in new}
    if divisions <= {key(one).split for one in old}:  # its other parts may not have begun
        old = [one for one in old if key(one).split in divisions]
    n, m = (Counter(map(key, one)) for one in (new, old))
    pairs = [(n[one], m[one]) for one in n if one in m] or [(min(n.values()), min(m.values()))]
    if changed := [pair for pair in pairs if pair[0] != pair[1]]:
        some = f" of {len(changed)} of {len(pairs)} settings" if len(changed) < len(pairs) else ""
        yield f"seeds{some}: {changed[0][0]}, not {changed[0][1]}"
    elif {one.seed for one in old} != {one.seed for one in new} or was != now:
        yield f"other seeds: --vary {now}, not {was}"
    yield from _other_settings([one for one in m if one not in n], [one for one in n if one not in m])
    # All that decides a verdict but the training, whose settings have their own words.
    lines = [Counter(replace(line, what="", method="", config=None) for line in one.lines) for one in texts]
    if rows := dict.fromkeys(line.row for line in [*(lines[1] - lines[0]), *(lines[0] - lines[1])]):
        yield f"numbers, remarks or checks of {_some([*rows])}"


def _other_settings(gone: Sequence[TrainConfig], new: Sequence[TrainConfig]) -> Iterator[str]:
    changed: dict[str, set[tuple[str, str]]] = {}
    for config in new if gone else ():  # compared with the most similar training that is no longer planned
        for key, pair in min((differences(one, config) for one in gone), key=len).items():
            changed.setdefault(key, set()).add((SETTINGS[key].words(pair[0]), SETTINGS[key].words(pair[1])))
    words = []
    for key, pairs in changed.items():
        (was, now), label = next(iter(pairs)), SETTINGS[key].label
        words.append(f"{label} {now}, not {was}" if len(pairs) == 1 else f"{len(pairs)} values of {label}")
    if words:
        yield _some(words, "; ")
    elif gone or new:
        yield f"trainings: {len(new)} new, {len(gone)} left out"


def _some(words: Sequence[str], between: str = ", ") -> str:
    more = f"{between}{len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return between.join(words[:SHOWN]) + more
