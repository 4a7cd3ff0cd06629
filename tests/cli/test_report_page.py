"""`klcli report --html`: the page as text, and in a real browser where there is one."""

import base64
import contextlib
import html
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from command import Klcli, Refused, change, read, succeeded

from klcli.report.page.page import Section, picture, render, table
from klcli.report.plots.chart import GREY, Chart, Line, Panel
from klcli.report.plots.figure import draw
from klcli.report.tables.table import Table, columns

EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\"> & 'quotes'"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture
def page(here: Klcli, trained: Path) -> Path:
    """A page of a complete, a diverged and an interrupted run, with a hostile note."""
    connection = sqlite3.connect(trained / "results/klcli.db")
    connection.execute("UPDATE runs SET note = ?, tags = '<i>x</i>', command = ? WHERE id = 2", [EVIL, EVIL])
    connection.execute("DELETE FROM epochs WHERE run_id = 1")
    connection.execute("UPDATE runs SET state = 'diverged', validation_accuracy = NULL, checkpoint = NULL WHERE id = 1")
    # Enough copies of a run for a table that is worth sorting.
    columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] not in ("id", "identity")]
    names = ", ".join(f'"{name}"' for name in columns)
    for number in (4, 5):
        connection.execute(f"INSERT INTO runs (id, {names}) SELECT {number}, {names} FROM runs WHERE id = 3")
        connection.execute(
            f"UPDATE runs SET validation_accuracy = 0.0{number}, seconds = 1{number} WHERE id = {number}"
        )
    connection.execute("UPDATE runs SET state = 'interrupted' WHERE id = 5")
    connection.commit()
    connection.close()
    succeeded(here("report", "--html", "report.html"))
    return trained / "report.html"


class Links(HTMLParser):
    """Collects what a page would load, and which elements are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "link"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def test_a_page_of_some_runs_has_these_alone(here: Klcli, trained: Path, unrendered: None) -> None:
    done = succeeded(here("report", "--html", "two.html", "--run", "3", "1", "--json"))
    assert {"Side by side", "Runs"} < set(json.loads(done.stdout)["sections"])
    text = (trained / "two.html").read_text(encoding="utf-8")
    assert re.findall(r"<summary>Run (\d+):", text) == ["3", "1"]  # the newest first
    assert here("report", "--html", "x.html", "--run", "9").returncode == 4
    assert here("report", "--html", "x.html", "--run", "1", "--where", "id = 1").returncode == 2
    assert not (trained / "x.html").exists()
    assert here("report", "--html", "results").returncode == 2
    total = len(read(trained, "SELECT id FROM runs"))
    succeeded(here("report", "--html", "one.html", "--limit", "1"))
    more = f"1 of {total} runs are listed: <code>klcli report --list --limit {total}</code> shows all."
    assert more in (trained / "one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["klcli.db", "checkpoints/run-000001.npz", "plots/run-000001.png"])
def test_a_page_replaces_no_database_network_or_picture(
    here: Klcli, refused: Refused, trained: Path, name: str
) -> None:
    file = trained / "results" / name
    before = file.read_bytes()
    for command in (("report", "--html"), ("reproduce", "a2-2019", "--data", "synthetic", "--markdown")):
        refused(here(*command, str(file)), 2, f"{command[-1]} {file}: this file is no export, choose another name")
        assert file.read_bytes() == before


@pytest.mark.parametrize("page", ["own.toml", "link.md", "new.toml"])
def test_a_page_has_not_the_name_of_a_report(here: Klcli, refused: Refused, tmp_path: Path, page: str) -> None:
    (tmp_path / "own.toml").write_text("report = '1'")
    (tmp_path / "link.md").symlink_to("own.toml")
    ran = here("reproduce", "own.toml", "--markdown", page)
    refused(ran, 2, f"{page.replace('link.md', 'own.toml')}: a report has such a name, end it in .md")
    assert (tmp_path / "own.toml").read_text() == "report = '1'"
    assert not (tmp_path / "new.toml").exists()


def test_a_filter_leaves_out_the_studies_without_a_run_that_it_keeps(here: Klcli, unrendered: None) -> None:
    study = ("--data", "synthetic", "--subset", "100", "--epochs", "1", "--hidden", "5", "--jobs", "1")
    succeeded(here("sigma-sweep", "--sigmas", "0.1", *study))  # study 1
    succeeded(here("search-lambda", "--values", "0.1", *study))  # study 2
    succeeded(here("runs", "tag", "1", "thesis"))

    def studies(*options: str) -> list[str]:
        sections = json.loads(succeeded(here("report", "--html", "p.html", "--json", *options)).stdout)["sections"]
        return [one.partition(":")[0] for one in sections if one.startswith("Study")]

    assert studies() == ["Study 1", "Study 2"]
    assert studies("--tagged", "thesis") == ["Study 1"]
    assert studies("--where", "id > 2") == ["Study 2"]
    assert studies("--dataset", "synthetic") == ["Study 1", "Study 2"]


def test_a_page_of_runs_in_another_state_is_refused_with_a_cure_that_works(
    here: Klcli, refused: Refused, trained: Path, unrendered: None
) -> None:
    """The cures were to omit --best, which was not there, and to add --list, which was refused as well."""
    change(trained, "UPDATE runs SET state = 'diverged', validation_accuracy = NULL WHERE id = 2")
    [condition] = re.findall('--where "(.*)"', refused(here("report", "--html", "x.html", "--state", "diverged"), 2))
    succeeded(here("report", "--html", "x.html", "--where", condition))
    assert re.findall(r"<summary>Run (\d+):", (trained / "x.html").read_text(encoding="utf-8")) == ["2"]
    succeeded(here("report", "--html", "x.html", "--state", "complete"))
    omitted = "--state diverged: no effect, --run shows the named runs, omit one of them"
    refused(here("report", "--html", "x.html", "--state", "diverged", "--run", "1-3", "--db", "none.db"), 2, omitted)


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.opened == []
    assert all(link.startswith(("data:", "#")) for link in links.loaded)
    assert sum(link.startswith("data:image/") for link in links.loaded) >= 4
    # The settings of a run stood under `remark`, and a screen reader read six digits of every number.
    assert ">setting</button>" in text and ">remark</button>" not in text
    assert re.search(r'alt="run \d weights"', text)
    assert {link[1:] for link in links.loaded if link.startswith("#")} <= set(re.findall(r' id="([^"]+)"', text))
    assert len(text) < 8_000_000
    assert EVIL not in text
    assert "&lt;script&gt;document.title" in text
    for words in ("diverged", "interrupted", "Synthetic images", "klcli train --data synthetic"):
        assert words in text


def test_a_picture_in_the_page_is_the_drawn_one_in_fewer_bytes() -> None:
    line = Line("a", [0, 1, 2], [0.1234567, 3, 2], GREY)
    drawn = draw(Chart('A & B\'s "title" #1 100%', "caption", [[Panel([line])]], 8, 4), "svg")
    [source] = re.findall(r'src="data:image/svg\+xml,([^"]*)"', picture("words", "svg", drawn))
    assert len(source) < 0.75 * len(base64.b64encode(drawn))
    before, after = ElementTree.fromstring(drawn), ElementTree.fromstring(unquote(html.unescape(source)))
    kept = {one.get("id"): one for one in after.iter() if one.get("id")}
    number = re.compile(r"-?[\d.]+(?:e-?\d+)?")
    for one in before.iter():
        if one.get("id"):
            other = kept.pop(one.get("id"))
            for name in {"d", "transform", "x", "y", "width", "height"} & set(one.attrib):
                expected, found = (list(map(float, number.findall(it.attrib[name]))) for it in (one, other))
                assert found == pytest.approx(expected, rel=1e-4)
    assert kept == {}


def test_a_table_begins_with_what_a_phone_can_show_and_a_long_one_is_folded() -> None:
    head = columns("*id:=run; network; lambda:.4g; loss:.4f; validation_accuracy:.4f=validation; &std:.4f; seconds:")
    row = {"id": 7, "network": "n", "lambda": 0.1, "validation_accuracy": 0.5, "std": 0.01}
    heads = re.findall(r"<th [^>]*>([^<]*)</th>", table(Table("t", head, [row])))
    assert heads == ["run", "validation", "std", "network", "lambda", "loss", "seconds"]
    assert re.findall(r"<td [^>]*>([^<]*)</td>", table(Table("t", head, [row])))[:3] == ["7", "0.5000", "0.0100"]
    assert "<details>" not in table(Table("t", head, [row] * 40))
    assert table(Table("t", head, [row] * 41)).startswith("<details><summary>t (41 rows)</summary>")


@pytest.mark.usefixtures("unrendered")
def test_two_data_sets_of_one_name_have_sections_of_their_own(here: Klcli, trained: Path) -> None:
    with contextlib.closing(sqlite3.connect(trained / "results/klcli.db")) as connection, connection:
        connection.execute("UPDATE runs SET dataset_sha256 = ? WHERE id = 1", ["01234567" * 8])
    assert here("report", "--html", "report.html", "--dataset", "synthetic").returncode == 0
    content = (trained / "report.html").read_text()
    assert re.findall(r"<summary>Run (\d+):", content) == ["3", "2", "1"]  # the list had those of one set
    identities = re.findall(r' id="([^"]*)"', content)
    assert len(identities) == len({*identities})
    assert re.findall(r' href="#([^"]*)"', content) == identities
    assert len(re.findall(r"<h2>synthetic, [^<]*, sha256 01234567</h2>", content)) == 1


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A fresh headless Chromium."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def resize(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.slow
def test_in_a_browser(page: Path, browser: Any) -> None:
    browser.get("about:blank")
    browser.get_log("performance")  # the browser's own first page is not ours
    browser.get(page.as_uri())
    assert browser.title == "klcli report"

    # Every picture can be decoded.
    script = (
        "const done = arguments[0]; const images = [...document.images];"
        "images.forEach(one => { one.loading = 'eager'; });"
        "Promise.all(images.map(one => one.decode()))"
        ".then(() => done(images.map(one => one.naturalWidth)), error => done(String(error)))"
    )
    widths = browser.execute_async_script(script)
    assert widths and all(isinstance(width, int) and width > 100 for width in widths), widths

    # Nothing sticks out of the page, on a phone or on a desk; every table scrolls inside its own box.
    for width in (400, 1200):
        resize(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        outside = (
            "return [...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, figure')"
            f" && one.getBoundingClientRect().right > {width} + 0.5).map(one => one.outerHTML.slice(0, 80))"
        )
        assert browser.execute_script(outside) == []
        # The accuracies of a ranking are there without scrolling.
        script = (
            "return [...document.querySelectorAll('th')].filter(one => one.textContent.trim() === 'validation')"
            ".map(one => one.getBoundingClientRect().right)"
        )
        assert 0 < max(browser.execute_script(script)) <= width

    # A click sorts, a second one the other way; cells without a value stay last.
    column = (
        "const tables = [...document.querySelectorAll('table.sortable')];"
        "const table = tables.find(one => one.tHead.textContent.includes('started'));"
        "const heads = [...table.tHead.rows[0].cells];"
        "const index = heads.findIndex(head => head.textContent === arguments[0]);"
        "if (arguments[1]) heads[index].querySelector('button').click();"
        "return [heads[index].ariaSort, [...table.tBodies[0].rows].map(row => row.cells[index].dataset.value)]"
    )
    _, before = browser.execute_script(column, "validation", False)
    numbers = sorted(float(value) for value in before if value)
    assert len(numbers) == 4 and before.count("") == 1
    order, down = browser.execute_script(column, "validation", True)
    assert (order, down) == ("descending", [*(str(value) for value in reversed(numbers)), ""])
    order, up = browser.execute_script(column, "validation", True)
    assert (order, up) == ("ascending", [*(str(value) for value in numbers), ""])
    order, words = browser.execute_script(column, "state", True)
    assert (order, words) == ("ascending", sorted(words))

    # What a user wrote is text, not code.
    assert browser.title == "klcli report"
    assert browser.execute_script("return document.querySelectorAll('i, img:not([src^=\"data:\"])').length") == 0

    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    requested = re.findall(r'"url\\?":\\?"(https?://[^"\\]+)', str(browser.get_log("performance")))
    assert requested == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_a_printed_table_has_its_header_on_every_page(browser: Any, tmp_path: Path) -> None:
    rows = Table("Long", columns("id:=run; network"), [{"id": i, "network": "3-layer 50-50"} for i in range(120)])
    (tmp_path / "long.html").write_text(render("t", "s", [Section("x", [table(rows, folds=False)])]), encoding="utf-8")
    browser.get((tmp_path / "long.html").as_uri())
    (tmp_path / "long.pdf").write_bytes(base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]))
    subprocess.run(["pdftotext", "-layout", "long.pdf", "long.txt"], cwd=tmp_path, check=True)
    *pages, _ = (tmp_path / "long.txt").read_text(encoding="utf-8").split("\f")
    assert len(pages) > 2
    assert all(re.search("^ *run +network *$", page, re.MULTILINE) for page in pages)
