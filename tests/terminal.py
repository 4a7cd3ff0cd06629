"""A terminal of a certain width, in which a command runs."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from light import LIGHT


def in_terminal(folder: Path, width: int, *args: str) -> list[str]:
    """The lines that klcli writes to a terminal of this width, without colours."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    seen = b""
    with subprocess.Popen([*LIGHT, *args], stdout=theirs, env=os.environ | {"TERM": "xterm"}, cwd=folder) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # Linux ends a terminal so
            pass
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()
