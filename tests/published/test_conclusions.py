"""Conclusions of a report: each is measured on hand-made runs, and holds, fails or stays undecided."""

from collections.abc import Mapping

import pytest
from records import epoch as stored_epoch
from scipy import stats

from klcli.errors import ConfigError
from klcli.published.comparison import Comparison, compare, plan
from klcli.published.conclusions import ahead_for_good
from klcli.published.report import Report, parse
from klcli.store.records import Epoch, Run
from test_comparison import run
