"""Predictions of pictures as a table."""

from collections.abc import Mapping, Sequence

from klcli.report.tables.table import Column, Row, Table, fraction


def prediction_table(title: str, pictures: Sequence[tuple[str, Mapping[str, float]]], top: int) -> Table:
    """One row per picture with the classes of the highest probabilities, the first of which is its name."""
    columns = {"picture": Column("picture", "picture", is_number=False)}
    rows = []
    for picture, probabilities in pictures:
        row: Row = {"picture": picture}
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            key, value = f"class_{place}", f"probability_{place}"
            row |= {key: name, value: probability}
            columns[key] = Column(key, "class" if place == 1 else "or", is_number=False)
            columns[value] = Column(value, "probability" if place == 1 else "", fraction)
        rows.append(row)
    return Table(title, tuple(columns.values()), rows)
