"""Training and prediction of whole networks."""
