"""Predictions of pictures as a table."""

from collections.abc import Mapping, Sequence

from klcli.report.tables.table import Row, Table, fraction, numbers, texts


def prediction_table(title: str, pictures: Sequence[tuple[str, Mapping[str, float]]], top: int) -> Table:
    """One row per picture with the classes of the highest probabilities, the first of which is its name."""
    columns = {"picture": texts("picture")}
    rows = []
    for picture, probabilities in pictures:
        row: Row = {"picture": picture}
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])
        for place, (name, probability) in enumerate(ordered[:top], start=1):
            keys, titles = (
                (f"class_{place}", f"probability_{place}"),
                ("class", "probability") if place == 1 else ("or", ""),
            )
            row |= dict(zip(keys, (name, probability), strict=True))
            columns[keys[0]] = (*texts(**{keys[0]: titles[0]}), *numbers(fraction, **{keys[1]: titles[1]}))
        rows.append(row)
    return Table(title, tuple(column for pair in columns.values() for column in pair), rows)
