"""A network whose weights lie in host memory and come to the device in groups, each when it is about to compute.

Its one rule: diffusers does it (`apply_group_offloading`); what is chosen here is how.
"""

import torch
from diffusers.hooks import apply_group_offloading


def by_groups(network: torch.nn.Module, device: torch.device, in_blocks: bool) -> None:
    """Have a network that lies in host memory compute on the device.

    in_blocks: block by block, which leaves a block's weights there while its layers compute; otherwise layer by layer.
    """
    # Copied while the block before computes.
    has_streams = device.type == "cuda"
    apply_group_offloading(
        network,
        onload_device=device,
        offload_type="block_level" if in_blocks else "leaf_level",
        num_blocks_per_group=1 if in_blocks else None,
        use_stream=has_streams,
        record_stream=has_streams,
    )
