"""The parts of tests/golden/families.py."""
