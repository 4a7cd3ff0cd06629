"""Documents: stored records as JSON objects, with the names of their columns as keys."""

import json
from dataclasses import asdict
from typing import Any

from klcli.settings.columns import columns, stored_value
from klcli.settings.train_config import TRANSDUCTIVE
from klcli.store.connection import measured
from klcli.store.later_checks import checked_network
from klcli.store.records import Epoch, Evaluation, GradientCheck, Run, Study


def run_document(run: Run) -> dict[str, Any]:
    """Return a run with every setting by column, and its config; if that cannot be read, its stored text."""
    own = _plain(asdict(run)) | {"versions": run.versions, "split": run.split_json}
    if run.unreadable:
        return own | {"config": run.config_json, "unreadable": run.unreadable}
    transductive = int(run.config.batch_norm and run.config.bn_statistics in TRANSDUCTIVE)
    return own | columns(run.config) | {"transductive": transductive, "config": json.loads(run.config_json)}


def check_document(check: GradientCheck) -> dict[str, Any]:
    """Return a gradient check with the errors of its tensors."""
    own = asdict(check)
    errors = [*map(_plain, own.pop("errors"))]
    return _plain(own) | checked_network(check.configs) | {"configs": own["configs_json"], "errors": errors}


def record_document(record: Epoch | Evaluation | Study) -> dict[str, Any]:
    """Return a record by column; the settings of a study stay the stored JSON text."""
    own = asdict(record)
    return _plain(own | ({"settings": json.dumps(own["settings"])} if "settings" in own else {}))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as stored, without texts that the document has in another form; JSON has no infinite numbers."""
    return {key: measured(stored_value(value)) for key, value in values.items() if not key.endswith("_json")}
