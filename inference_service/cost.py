"""What an image costs, in passes: the unit in which the queue is bounded and its speed measured.

A pass is one run of the denoiser over one picture of the base model's default size. Its one rule: a cost follows from
the request alone and is a whole number, so that what was added to a sum can be taken away without a rest.
"""

# SDXL's decoder costs 1.55 passes, and the picture becomes a file after that. Without this a picture of one step would
# seem to be nearly free.
_DECODING_PASSES = 2


def image_cost(width: int, height: int, steps: int, is_guided: bool, default_size: int) -> int:
    """Passes that one image costs. Sizes are in pixels; guidance runs every step with and without the prompt."""
    passes = steps * (2 if is_guided else 1) + _DECODING_PASSES
    return -(-width * height * passes // default_size**2)
