"""The checks: each module has one function `check`."""
