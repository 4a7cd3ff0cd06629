"""What the Lab does, step by step: each procedure records itself and prints nothing."""
