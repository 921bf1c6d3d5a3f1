"""The inference service: pictures with the base model and any adapters of the bucket, over gRPC.

Run it with `python -m inference_service`; `settings.py` documents its environment.
"""
