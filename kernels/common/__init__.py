"""What several families share: windows, ordered sums, moments, rows, channels, casts, ReLU."""
