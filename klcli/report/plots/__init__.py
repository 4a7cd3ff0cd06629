"""Pictures in two steps: gather plain values from stored records, then draw them."""

import logging

# Before the import of matplotlib, which without a writable home folder reports its cache folder on stderr.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
