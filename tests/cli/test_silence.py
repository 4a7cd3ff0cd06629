"""No command is silent for long: a bar on a terminal, lines where there is none; and what it may be told next."""

import io
import json
import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command import Klcli, Refused, succeeded
from light import KLCLI

from klcli.cli.app import main
from klcli.cli.invocation import Invocation
from klcli.cli.progress import Pace, Step
from klcli.files import hold
from klcli.settings.run_command import DEFAULT_DATABASE

# Without a byte, and half of all that the command takes on a slow machine; it was 12 s of 13 s. LLVM holds the
# interpreter for 1 to 3 s per large function.
MOST_SECONDS = 6.0


def longest_silence(folder: Path, *args: str, **environment: str) -> tuple[float, float, str]:
    """Run klcli on a terminal; return the longest time without output, the whole time, and what the terminal got."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    gaps, text, last = [], b"", time.monotonic()
    with subprocess.Popen(
        [*KLCLI, *args], cwd=folder, env=os.environ | environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        with suppress(OSError):  # Linux ends a terminal so
            while chunk := os.read(ours, 65536):
                now = time.monotonic()
                gaps.append(now - last)
                text, last = text + chunk, now
    os.close(ours)
    assert process.returncode == 0, text
    return max(gaps), sum(gaps), text.decode()


@pytest.mark.slow
def test_the_first_training_of_all_is_never_silent(tmp_path: Path) -> None:
    """60 000 images are made and written in 3 s, and the arithmetic is compiled in 8 s."""
    own = {"KLCLI_CACHE": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": "", "TERM": "xterm"}
    silence, whole, text = longest_silence(
        tmp_path, *["train", "--data", "synthetic", "--subset", "200", "--hidden", "10", "--epochs", "1"], **own
    )
    words = " ".join(text.split())
    assert text.count("184 MB") == 1
    for part in ("preparing the images (built in) once: 184 MB in", "loading the compiled arithmetic", "\x1b[2K"):
        assert part in words
    assert silence < max(MOST_SECONDS, whole / 2), text


@pytest.mark.slow
def test_the_speed_of_an_assignment_is_not_measured_in_silence(tmp_path: Path) -> None:
    """It was 6 s without a byte, on all images."""
    silence, whole, text = longest_silence(
        tmp_path, *["assignment", "--dry-run", "--data", "synthetic", "--subset", "5000"], TERM="xterm"
    )
    assert "measuring the speed" in text
    assert "\nabout " in text
    assert silence < max(MOST_SECONDS, whole / 2), text


def test_a_log_has_its_first_line_after_a_second_and_a_half(capsys: pytest.CaptureFixture[str]) -> None:
    invocation = Invocation()
    invocation.spoke()
    assert Pace(invocation).due - invocation.last_word == pytest.approx(1.5)


def test_a_command_that_does_not_fit_begins_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal; in a pipe, a message is one line."""
    message = "339 more with 45000 images train, 5000 validate: klcli report --best 10 --images-of 721"
    for width, is_terminal, lines in ((80, True, 2), (120, True, 1), (80, False, 1)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("COLUMNS", str(width))
        Invocation().say(message, command := f"klcli train {'--hidden 50 ' * 10}--bn")
        *shown, last = [re.sub("\x1b.*?m", "", line).strip() for line in stream.getvalue().splitlines()]
        assert shown == message.replace(": klcli", ":\nklcli" if lines == 2 else ": klcli").splitlines()
        assert last == command


@pytest.mark.parametrize(("is_terminal", "last"), [(True, 80), (False, 1000)])
def test_an_error_wraps_between_words_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, last: int
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["report", "--plot", "everything"])
    words = "klcli: --plot 'everything': choose one of curves, training, bn, rate, weights, confusion, lambda, sigma,"
    assert " ".join(stream.getvalue().split()).startswith(words)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= last and len(lines) == (2 if is_terminal else 1)
    assert set(words.split()) <= {word for line in lines for word in line.split()}


def test_a_step_speaks_when_it_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    invocation, say, said = Invocation(), Invocation.say, list[float]()
    with Step(invocation, "short") as step:
        step(1)
    monkeypatch.setattr(Invocation, "patience", 0.1)
    monkeypatch.setattr(Invocation, "say", lambda self, *words: (say(self, *words), said.append(time.monotonic())))

    def wait_for(lines: int) -> None:
        while len(said) < lines:
            time.sleep(0.005)

    began = time.monotonic()
    invocation.spoke()
    step = Step(invocation, "reading images", 40.0)
    made = time.monotonic()
    step(10)
    with step:
        wait_for(1)
        least, words, most = time.monotonic() - made, step.words(), time.monotonic() - began
        step(10)
        wait_for(2)
    with Step(Invocation(quiet=True), "quiet"):
        time.sleep(0.15)
    first, second, *others = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"reading images: 10 of 40, [\d.]+ s left", first)
    left = re.fullmatch(r"10 of 40, ([\d.]+) s left", words)
    assert left and 3 * least - 0.06 < float(left[1]) < 3 * most + 0.06  # three times as much is left
    assert said[0] - began > 0.09
    assert re.fullmatch(r"reading images: [12]0 of 40, .* left", second)
    assert not [line for line in others if not line.startswith("reading images: ")]


NEXT = {
    "search-lambda --subset 200 --hidden 10 --trials 2 --cycles 1 --step-epochs 1 --jobs 1": [
        "report --study 1 --plot lambda --to lambda.pdf", "train --hidden 10",
    ],
    "sigma-sweep --subset 200 --hidden 10 --sigmas 0.1 --cycles 1 --step-epochs 1 --jobs 1": [
        "report --study 1 --plot sigma --to sigma.pdf", "report --study 1 --plot curves",
    ],
    "train --subset 200 --hidden 10 --epochs 1": ["evaluate 1 --flips", "report --best 10"],
    "train --subset 200 --hidden 10 --epochs 1 --repeats 2": [
        "report --study 1 --plot curves", "report --group-by hidden,bn,lambda",
    ],
}  # fmt: skip


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("command", [*NEXT][:1] + [pytest.param(one, marks=pytest.mark.slow) for one in [*NEXT][1:]])
def test_the_next_commands_work(here: Klcli, command: str) -> None:
    done = succeeded(here(*command.split(), "--data", "synthetic", "--db", "mine.db"))
    found = re.findall(r"^next +klcli (.*) --db mine\.db$", done.stderr, re.MULTILINE)
    assert len(found) == 2
    for given, expected in zip(found, NEXT[command], strict=True):
        assert given.startswith(expected)
        succeeded(here(*given.split(), "--db", "mine.db"))
    assert "next" not in here("report", "--best", "1", "--db", "mine.db", "--json").stderr
    assert not DEFAULT_DATABASE.exists()


@pytest.mark.usefixtures("unrendered")
def test_the_next_command_shows_the_runs_that_were_trained(here: Klcli) -> None:
    """Where those on other images are ranked first, as with all images, or with those of most runs here."""

    def ranked(*options: str) -> tuple[str, list[str]]:
        train = ("train", "--data", "synthetic", "--hidden", "4", "--epochs", "1", "--jobs", "1", *options)
        *_, command = re.findall(r"^next +klcli (.*)$", succeeded(here(*train)).stderr, re.MULTILINE)
        document = json.loads(succeeded(here(*command.split(), "--json")).stdout)
        shown = [one["runs"] for one in document.get("groups", [])]
        return command, shown or sorted(str(one["id"]) for one in document["runs"])

    by = "report --group-by hidden,bn,lambda"
    assert ranked("--subset", "300", "--repeats", "4") == (by, ["1-4"])
    assert ranked("--subset", "200") == ("report --best 10 --images-of 5", ["5"])
    assert ranked("--subset", "150", "--repeats", "2", "--seed", "3") == (f"{by} --images-of 6", ["6-7"])
    assert ranked("--subset", "300", "--seed", "9") == ("report --best 10", ["1", "2", "3", "4", "8"])


def test_the_cache_is_shown_and_cleared(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "prepared").mkdir(parents=True)
    prepared = cache / "prepared" / f"{'a' * 64}.images"
    prepared.write_bytes(bytes(3_500_000))
    (cache / "cifar-10-binary.tar.gz").write_bytes(bytes(1_200_000))
    shown = succeeded(here("data", "cache", KLCLI_CACHE=str(cache)))
    assert f"4.7 MB in {cache}; `klcli data cache --clear` frees 3.5 MB" in shown.stdout
    with prepared.open("rb") as file:
        hold(file)
        refused(here("data", "cache", "--clear", "--json", KLCLI_CACHE=str(cache)), 4, "in use", "0.0 MB freed")
    cleared = json.loads(here("data", "cache", "--clear", "--json", KLCLI_CACHE=str(cache)).stdout)
    assert cleared["freed"] == cleared["removed"][0]["bytes"] == 3_500_000
    assert [one["kind"] for one in cleared["kept"]] == ["download"]
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["cifar-10-binary.tar.gz"]
    again = here("data", "cache", "--clear", KLCLI_CACHE=str(cache))
    assert f"0.0 MB freed, 1.2 MB left in {cache}" in again.stdout
