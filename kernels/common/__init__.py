"""What several families share: window geometry, ordered sums, rows and channels, casts, ReLU."""
