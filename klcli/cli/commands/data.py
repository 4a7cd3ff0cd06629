"""`klcli data`: show the images in use, download CIFAR-10, and show or clear what klcli has cached."""

from dataclasses import replace

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import KlcliCommand
from klcli.errors import StoreError
from klcli.report.tables.table import Table, columns
from klcli.settings.run_command import database_in_use
from klcli.settings.setting import flag, setting
from klcli.termination import at_the_end
from klcli.text import path_text

app = typer.Typer(help="Show the images in use, download CIFAR-10, clear the cache.", no_args_is_help=True)

DOWNLOAD, CACHE = "Download", "Cache"
DOWNLOADING = "downloading, in MB"


@app.command(cls=KlcliCommand)
@invoked("data")
def info(*, invocation: Invocation) -> None:
    """Check all images that the other commands would use, and show where they come from.

    - `klcli data info --data cifar-10-python.tar.gz`
    """
    import numpy as np

    from klcli.data.sources import open_dataset

    dataset = open_dataset(invocation.data, invocation.say, invocation.step)
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
    built_in = "no: made by klcli, `klcli data fetch` downloads CIFAR-10, --data PATH names it"
    where, test = f"{content['prepared']}, {content['prepared_bytes'] / 1e6:.0f} MB", content["images"]["test"]
    facts = {
        "name": dataset.name,
        "where": dataset.source,
        "layout": dataset.layout,
        "official copy": {True: "yes", False: "no", None: built_in}[dataset.official],
        "images": f"{train} to train and validate, {test} to test",
        "size": f"{dataset.images.nbytes / 1e6:.0f} MB, 3 x 32 x 32 bytes an image",
        "prepared copy": where if copy else "none: the cache cannot be written",
        "sha256": dataset.sha256,
    } | {f"passed over {n}": what for n, what in enumerate(dataset.passed_over, 1)}
    width = max(map(len, ["class", *names]))
    rows = [("class", "train", "test"), *zip(names, *counts, strict=True)]
    classes = [f" {name:<{width}}  {n:>5}  {m:>4}" for name, n, m in rows]
    invocation.result(*(f" {name:<13}  {value}" for name, value in facts.items()), "", *classes)
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
    """Download CIFAR-10 (170 MB) into klcli's cache; run again after an interruption, it continues.

    - `klcli data fetch --url https://example.org/cifar-10-python.tar.gz`
    """
    from klcli.cli.progress import Step
    from klcli.data.cifar10 import fetch as fetching
    from klcli.data.cifar10.prepared import cache_folder

    if md5 is not None and not verify:
        raise typer.BadParameter(f"--md5 {md5} and --no-verify exclude each other: omit one")
    address, destination, fetched = fetching.URL if url is None else url, cache_folder(), None
    expected = (fetching.OFFICIAL if md5 is None else md5) if verify else None
    if expected == fetching.OFFICIAL:
        with invocation.step("checking the earlier download"):
            fetched = fetching.fetched_before(address, destination)
    if fetched:
        invocation.say(f"{path_text(fetched.path)} already contains the official copy")
    else:
        invocation.say(f"from {address} to {path_text(destination)}")
        kept = "the partial download is kept, run the same command again to continue"
        with at_the_end(lambda: kept), Step(invocation, "connecting") as step:

            def progress(done: int, total: int | None) -> None:
                """Show the megabytes, then that the whole archive is being read."""
                name = "checking the archive" if done == total else DOWNLOADING
                if step.name != name:
                    step.begin(name, total and total / 1e6 if name == DOWNLOADING else None, done / 1e6)
                step.done = done / 1e6

            fetched = fetching.fetch(address, destination, progress, expected)
    invocation.result(f"{path_text(fetched.path)}  ({'official' if fetched.official else 'not an official'} copy)")
    # This command has no --db: the next one uses the database of KLCLI_DB, or the default.
    replace(invocation, db=database_in_use()).then("data info", "train --hidden 50 30 20 --bn")
    document = {"path": path_text(fetched.path), "url": address, "layout": fetched.layout, "official": fetched.official}
    invocation.document("data fetch", document | {"md5": fetched.md5, "bytes": fetched.path.stat().st_size})


@app.command(cls=KlcliCommand)
@invoked()
def cache(clear: bool = flag(CACHE, "Remove what klcli can make again."), *, invocation: Invocation) -> None:
    """Show what klcli has cached: prepared images, compiled code, downloads; or clear it.

    Downloads stay, and images that a running klcli uses.

    - `klcli data cache --clear`
    """
    from klcli.data.cifar10.prepared import cache_folder
    from klcli.procedures import cache as caching

    with invocation.step("looking through the cache"):
        removed = caching.clear() if clear else []
        left = caching.kept()
    folder, freed, total = path_text(cache_folder()), *(sum(one.bytes for one in many) for many in (removed, left))
    if held := [one for one in left if one.state == caching.HELD] if clear else []:
        names = ", ".join(dict.fromkeys(f"{one.kind} ({one.source})" for one in held))
        cure = f"clear the cache again when it has ended ({freed / 1e6:.1f} MB freed)"
        raise StoreError(f"{names}: in use by a running klcli, {cure}")
    if clear and any(one.state == caching.READ_ONLY for one in left):
        raise StoreError(f"{folder}: cannot be cleared (read-only), its owner can, or name another with KLCLI_CACHE")
    rows = [caching.row_of(one) for one in removed or left]
    head = columns("kind; bytes:=MB; source=made of; state; ??path", bytes=lambda n: f"{n / 1e6:.1f}")
    title = f"{'Removed from' if removed else 'In'} {folder}"
    words = f"{freed / 1e6:.1f} MB freed, {total / 1e6:.1f} MB left in {folder}"
    if not clear:
        free = sum(one.bytes for one in left if one.is_removable)
        words = f"{total / 1e6:.1f} MB in {folder}; `klcli data cache --clear` frees {free / 1e6:.1f} MB"
    invocation.result(*[Table(title, head, rows)] * bool(rows), words)
    documents = {"folder": folder, "removed": [*map(caching.row_of, removed)], "kept": [*map(caching.row_of, left)]}
    invocation.document("data cache", documents | {"freed": freed})
