"""Table, notes and document of the gradients of another program, compared with those of an export."""

from collections.abc import Iterator
from typing import Any

from klcli.report.tables.table import Table, columns
from klcli.report.words import network_name
from klcli.studies.gradient_explanations import ROUNDING, SINGLE
from klcli.studies.gradient_files import FORWARD, GRADIENTS, RESULTS, Comparison
from klcli.studies.gradient_mistakes import ROUNDED

# Scores and probabilities of networks of 3 to 9 layers differ by at most 1.3e-6 in float32, by 4e-6 with eps 1e-5.
FLOAT32 = 2e-6


def compared_table(found: Comparison, name: str) -> Table:
    """One row per array, in the order of the network."""
    rows = []
    for one in found.arrays:
        words = {"shape": " x ".join(map(str, one.shape)) or "1", "verdict": "pass" if one.passed else "FAIL"}
        rows.append(vars(one.errors) | {"array": one.key} | words)
    head = columns("array; shape; max_absolute:.1e=max abs; relative_to_sum:.1e=rel to sum; verdict")
    return Table(f"{name}: {network_name(found.config)}, lambda {found.config.lam:g}", head, rows)


def compared_notes(found: Comparison) -> Iterator[str]:
    """State the verdict, the mistakes that explain it, and what to correct first."""
    failed, wrong = found.failed, found.failed_gradients
    n = len(found.arrays)
    words = "array equals" if n == 1 else "arrays equal"
    yield f"{'FAIL' if failed else 'PASS'}: {n - len(failed)} of {n} {words} the reference"
    if all(one.kind not in GRADIENTS for one in found.arrays):
        yield "no gradient is among them, save dW1, db1, ..."
    if inputs := [one.key for one in failed if one not in wrong and one.kind not in RESULTS]:
        yield f"{', '.join(inputs)}: read from the export, changed before it was saved"
    explained, results = found.explanations, [one for one in failed if one.kind in RESULTS]
    # What is exact in float64 has no rounding.
    limits = (SINGLE if one.mistakes == (ROUNDED,) else FLOAT32 * (one.distance >= ROUNDING) for one in explained)
    limit = min(limits, default=FLOAT32)
    near = [one.key for one in results if one.errors.ratio_of_maxima < limit]
    if near and not explained:
        yield f"{', '.join(near)}: {ROUNDED.cure}"
    results = [one for one in results if one.key not in near]
    keys = ", ".join(one.key for one in results)
    if any(one.kind in FORWARD for one in results):
        yield f"{keys}: correct the forward pass first, every gradient depends on it"
    elif results:
        yield f"{keys}: J is the mean cross-entropy plus lambda times the sum of W squared"
    if wrong:
        yield f"the first wrong gradient, counted from the output: {wrong[0].key}"
        if found.explanations and found.since > 1:
            yield f"no two mistakes explain all of them: correct layer {found.since} first, then compare again"
        kind = "likely mistake" if len(found.explanations) == 1 else "one of these, save more arrays to tell them apart"
        for one in found.explanations:
            yield f"{kind}: {one}"
            yield from (f"  {mistake.cure}" for mistake in one.mistakes)
        if not found.explanations:
            yield "no mistake of the catalogue explains this, nor two together (`klcli help gradients` lists it)"
    if found.absent and any(one.kind in GRADIENTS for one in found.arrays):
        yield f"not compared, the file lacks them: {', '.join(found.absent)}"
    for key, similar in found.ignored.items():
        yield f"ignored: {key}, no key of the export" + (f", did you mean {similar}?" if similar else "")


def compared_document(found: Comparison) -> dict[str, Any]:
    """Return the comparison as a JSON object."""
    arrays = []
    for one in found.arrays:
        errors = {key: getattr(one.errors, key) for key in ("max_absolute", "relative_to_sum")}
        arrays.append({"key": one.key, "shape": [*one.shape], **errors, "passed": one.passed})
    mistakes = [
        {"names": [one.name for one in explained.mistakes], "layer": explained.layer, "text": str(explained)}
        for explained in found.explanations
    ]
    first = next((one.key for one in found.failed_gradients), None)
    lists = {"ignored": [*found.ignored], "notes": [*compared_notes(found)]}
    return {"arrays": arrays, "mistakes": mistakes, "first_wrong": first, **lists}
