"""One file per command: parsing, wiring, exit codes."""
