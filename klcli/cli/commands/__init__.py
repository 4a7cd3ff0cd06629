"""One file per command: parse, call the Lab, show."""
