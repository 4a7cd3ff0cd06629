"""The five course reports: their settings and numbers as data, and the comparison with ours."""
