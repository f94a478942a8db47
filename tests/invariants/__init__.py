"""What holds for the whole: repeatability, imports, resources, copies, the README."""
