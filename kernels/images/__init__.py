"""Warps, augmentation and dropout."""
