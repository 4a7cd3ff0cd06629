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
        marks = {
            "SYNTHETIC IMAGES, no CIFAR-10: no training can be compared": self.dataset == "synthetic",
            f"SUBSET of {self.subset} training images: no training can be compared": self.subset is not None,
            "AS PUBLISHED: with the mistakes that the numbers come from": self.as_published,
            "QUICK: fewer seeds, and one cycle where the report has more": self.quick,
        }
        return [mark for mark, is_true in marks.items() if is_true]

    @property
    def brackets(self) -> str:
        """The marks in titles: ` [AS PUBLISHED] [QUICK]`."""
        return "".join(f" [{mark.partition(':')[0]}]" for mark in self.marks)

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
