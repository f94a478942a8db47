"""Tests of `cnn`: layers, models, trainings, files, data."""
