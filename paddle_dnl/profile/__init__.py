"""MACs, memory plan, measuring."""
