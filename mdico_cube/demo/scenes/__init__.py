"""One file per sensor: the simulated landscape in, that sensor's scenes out."""
