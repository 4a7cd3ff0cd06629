"""Documents: stored records as they appear in JSON."""

import json
from typing import Any


def run_document(run: Any) -> dict[str, Any]:
    """Return a run with its JSON columns opened."""
    return run | {"config": json.loads(run["config"]), "versions": json.loads(run["versions"])}
