"""`klcli data info` and `klcli data fetch`: show the images in use, and download CIFAR-10."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import KlcliCommand
from klcli.settings.setting import setting
from klcli.termination import at_the_end
from klcli.text import path_text

app = typer.Typer(help="Show the images in use, or download CIFAR-10.", no_args_is_help=True)

DOWNLOAD = "Download"


@app.command(cls=KlcliCommand)
@invoked("data")
def info(*, invocation: Invocation) -> None:
    """Check all images that the other commands would use, and show where they come from."""
    import numpy as np

    from klcli.data.sources import open_dataset

    dataset = open_dataset(invocation.data, invocation.say)
    copy = dataset.images_file
    train, names = len(dataset.images) * 5 // 6, dataset.class_names
    counts = [np.bincount(labels, minlength=len(names)).tolist() for labels in np.split(dataset.labels, [train])]
    content = {key: getattr(dataset, key) for key in ("name", "source", "layout", "official")} | {
        "prepared": path_text(copy) if copy else None,
        "prepared_bytes": copy.stat().st_size if copy else 0,
        "passed_over": dataset.passed_over,
        "images": {"train": train, "test": len(dataset.images) - train},
        "bytes": dataset.images.nbytes,
        "sha256": dataset.sha256,
        "classes": [{"name": name, "train": n, "test": m} for name, n, m in zip(names, *counts, strict=True)],
    }
    invocation.result(*_lines(content))
    invocation.document("data info", content)


@app.command(cls=KlcliCommand)
@invoked()
def fetch(
    url: str | None = setting(None, DOWNLOAD, "Download this archive, by default the official one.", metavar="URL"),
    md5: str | None = setting(None, DOWNLOAD, "Expect this checksum, not an official one.", metavar="HEX"),
    verify: bool = setting(True, DOWNLOAD, "Refuse an archive with another checksum."),
    *,
    invocation: Invocation,
) -> None:
    """Download CIFAR-10 (170 MB) into klcli's cache; run again after an interruption, it continues."""
    from klcli.data.cifar10 import fetch as fetching
    from klcli.data.cifar10.prepared import cache_folder

    if md5 is not None and not verify:
        raise typer.BadParameter(f"--md5 {md5} and --no-verify exclude each other: omit one")
    address, destination = url or fetching.URL, cache_folder()
    expected = (md5 or fetching.OFFICIAL) if verify else None
    if fetched := fetching.fetched_before(address, destination) if expected == fetching.OFFICIAL else None:
        invocation.say(f"{path_text(fetched.path)} already contains the official copy")
    else:
        invocation.say(f"from {address} to {path_text(destination)}")
        kept = "the partial download is kept, run `klcli data fetch` again to continue"
        with at_the_end(lambda: kept), _progress(invocation) as progress:
            fetched = fetching.fetch(address, destination, progress, expected)
    invocation.result(f"{path_text(fetched.path)}  ({'official' if fetched.official else 'not an official'} copy)")
    document = {"path": path_text(fetched.path), "url": address, "layout": fetched.layout, "official": fetched.official}
    invocation.document("data fetch", document | {"md5": fetched.md5, "bytes": fetched.path.stat().st_size})


def _lines(content: dict[str, Any]) -> list[str]:
    images, copy, copied = content["images"], content["prepared"], content["prepared_bytes"] / 1e6
    facts = {
        "name": content["name"],
        "where": content["source"],
        "layout": content["layout"],
        "official copy": {True: "yes", False: "no", None: "no: made by klcli"}[content["official"]],
        "images": f"{images['train']} to train and validate, {images['test']} to test",
        "size": f"{content['bytes'] / 1e6:.0f} MB, 3 x 32 x 32 bytes an image",
        "prepared copy": f"{copy}, {copied:.0f} MB" if copy else "none: the cache cannot be written",
        "sha256": content["sha256"],
    } | {f"passed over {n}": what for n, what in enumerate(content["passed_over"], 1)}
    classes = [("class", "train", "test"), *(tuple(one.values()) for one in content["classes"])]
    width = max(len(name) for name, *_ in classes)
    rows = [f" {name:<{width}}  {train:>5}  {test:>4}" for name, train, test in classes]
    return [*(f" {name:<13}  {value}" for name, value in facts.items()), "", *rows]


@contextmanager
def _progress(invocation: Invocation) -> Iterator[Callable[[int, int | None], None]]:
    """Yield the function `progress(done, total)` in bytes: a bar on a terminal, elsewhere a line per 10 %."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    shown = -1

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        bar.update(task, completed=done, total=total)
        tenth = 10 * done // total if total else done // 20_000_000  # or every 20 MB
        if tenth > shown and not invocation.is_live:
            shown = tenth
            invocation.say(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB")

    with invocation.bar(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=None)
        yield show
