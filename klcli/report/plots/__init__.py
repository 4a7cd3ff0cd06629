"""Pictures: what is gathered from stored records is a plain value, drawing it is a second step."""

import logging

# Before matplotlib is imported: without a home that can be written, it would tell on stderr where it keeps its cache.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
