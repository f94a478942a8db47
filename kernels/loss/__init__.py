"""Softmax and cross-entropy, alone and with the last dense layer."""
