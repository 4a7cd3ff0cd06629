"""The procedures of the Lab: each records its results and prints nothing."""
