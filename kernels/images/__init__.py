"""Images: normalised, warped, augmented; dropout."""
