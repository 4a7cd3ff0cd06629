"""Predictions of pictures as a table."""

from collections.abc import Mapping, Sequence

from klcli.report.tables.table import Column, Row, Table, fraction


def prediction_table(title: str, pictures: Sequence[tuple[str, Mapping[str, float]]], top: int) -> Table:
    """One row per picture with the classes of the highest probabilities, the first of which is its name."""
    rows = []
    for picture, probabilities in pictures:
        row: Row = {"picture": picture}
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            row |= {f"class_{place}": name, f"probability_{place}": probability}
        rows.append(row)
    places = range(1, min(top, max((len(p) for _, p in pictures), default=0)) + 1)
    columns = [
        column
        for place in places
        for column in (
            Column(f"class_{place}", "class" if place == 1 else "or", is_number=False),
            Column(f"probability_{place}", "probability" if place == 1 else "", fraction),
        )
    ]
    return Table(title, (Column("picture", "picture", is_number=False), *columns), rows)
