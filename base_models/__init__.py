"""What a base-model family is, one file a family, and the bundled base model.

Used by the training loop and by the denoising engine alike; knows no service, no store and no gRPC.
"""
