"""Terms: under which conditions a report was reproduced."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """Under which conditions a report was reproduced, as every table, page and document says."""

    dataset: str
    official: bool | None  # whether these are the official files; None where that cannot be known
    sha256: str
    repeats: int
    quick: bool = False
    subset: int | None = None
    as_published: bool = False
    note: str | None = None  # what else is known of it, and klcli cannot see

    @property
    def marks(self) -> list[str]:
        """What makes this less than a reproduction."""
        found = []
        if self.dataset == "synthetic":
            found.append("SYNTHETIC IMAGES, no CIFAR-10: no training can be compared")
        if self.subset is not None:
            found.append(f"SUBSET of {self.subset} training images: no training can be compared")
        if self.as_published:
            found.append("AS PUBLISHED: with the mistakes that the numbers come from")
        if self.quick:
            found.append("QUICK: fewer seeds, and one cycle where the report has more")
        return found

    @property
    def images(self) -> str:
        """`cifar10 (sha256 0a1b2c3d, not the official files)`."""
        words = {True: ", the official files", False: ", not the official files", None: ""}[self.official]
        return f"{self.dataset} (sha256 {self.sha256[:8]}{words})"

    @property
    def origin(self) -> str:
        """What is known of where the images come from, in a sentence."""
        if self.dataset == "synthetic":
            return "klcli has made these images, they are no CIFAR-10."
        return {
            True: "By their checksums, these are the official files.",
            False: "These are not the official files: their checksums are others, and so may be their images.",
            None: "Whether these are the official images is not known: there is no checksum to compare them with.",
        }[self.official]

    @property
    def incomparable(self) -> str | None:
        """Why nothing can be compared, where that is so."""
        if self.dataset == "synthetic":
            return "synthetic images, no CIFAR-10"
        return None if self.subset is None else f"{self.subset} training images, not all"
