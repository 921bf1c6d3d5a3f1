"""The engine that batches by denoising step."""
