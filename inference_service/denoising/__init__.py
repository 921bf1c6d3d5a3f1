"""The step engine: denoises the images of many requests together, one step at a time."""
