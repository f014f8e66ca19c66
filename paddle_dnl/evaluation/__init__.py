"""Inference modes (whole, slide, TTA), metrics, scores and reports."""
