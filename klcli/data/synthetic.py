"""TMP"""

from klcli.data.dataset import Dataset


def open_synthetic() -> Dataset:
    """T."""
    raise NotImplementedError
