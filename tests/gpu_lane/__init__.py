"""`make gpu`: what is run on a real GPU, in parts."""
