"""Trainings and predictions of whole networks."""
