"""Faults on purpose: what must still hold when workers, kernels, disks, clocks and users do their worst.

Tests are named after the cases of `docs/reliability.md`.
"""
