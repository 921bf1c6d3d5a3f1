from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
    resolution: int
    size_step: int
    aspect_buckets: bool
    crop: str
