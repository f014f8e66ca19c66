"""Collective operations, the watchdog of ranks, and signals."""
