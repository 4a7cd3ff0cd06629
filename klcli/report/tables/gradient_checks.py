"""A whole suite of gradient checks as one table, for formats that have one table per file."""

from collections.abc import Sequence
from dataclasses import replace

from klcli.report.tables.table import Column, Row, Table, gradient_check_table, gradient_check_title


def suite_table(checks: Sequence[Row]) -> Table:
    """The tensors of all networks, each row with its network."""
    tables = [gradient_check_table(check) for check in checks]
    rows = [
        row | {"network": gradient_check_title(check), "verdict": "pass" if row["passed"] else "FAIL"}
        for check, table in zip(checks, tables, strict=True)
        for row in table.rows
    ]
    columns = (Column("network", "network", is_number=False), *tables[0].columns)
    named = tuple(replace(column, title="verdict") if column.key == "verdict" else column for column in columns)
    return Table(f"Gradient check, suite {checks[0]['suite']}", named, rows)
