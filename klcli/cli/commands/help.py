"""`klcli help`: the pages that ship with klcli."""

import sys
from importlib.resources import files
from typing import Annotated

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import argument
from klcli.errors import ConfigError


@invoked()
def help_on(
    *,
    topic: Annotated[
        str | None, argument("TOPIC", "A topic, for example reproduce; all are listed if omitted.")
    ] = None,
    invocation: Invocation,
) -> None:
    """Show a page of the documentation, or the list of pages.

    - `klcli help`

    - `klcli help reproduce`
    """
    pages = {
        one.name.removesuffix(".md"): one.read_text(encoding="utf-8")
        for one in sorted(files("klcli").joinpath("docs").iterdir(), key=lambda one: one.name)
        if one.name.endswith(".md")
    }
    if topic is None:
        titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in pages.items()}
        invocation.result(*(f"{name:<12}{title}" for name, title in titles.items()))
        invocation.document("help", {"topics": titles})
        return
    if topic not in pages:
        raise ConfigError(f"help {topic!r}: choose one of {', '.join(pages)}; `klcli COMMAND --help` shows options")
    invocation.document("help", {"topic": topic, "text": pages[topic]})
    if sys.stdout.isatty() and not invocation.as_json:  # in a pipe, the page stays as it is
        from rich.markdown import Markdown

        invocation.out.print(Markdown(pages[topic], hyperlinks=False))
    elif not invocation.as_json:
        print(pages[topic], end="")
