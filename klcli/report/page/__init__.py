"""The HTML report in one file."""
