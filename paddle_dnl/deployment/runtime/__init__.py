"""Runs an exported folder: Predictor, backends, selection, pipeline, outputs."""
