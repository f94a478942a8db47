"""What several families share: window geometry, ordered sums, ReLU."""
