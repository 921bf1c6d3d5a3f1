"""`python -m base_models.device_report`: what torch is installed, and which GPUs it can compute on.

One JSON object on standard output: `{"event": "torch", "version": …, "cuda": …, "problem": …, "devices": [{"name": …,
"memory_bytes": …, "free_bytes": …, "bfloat16": …}]}`. `cuda` is the version that this build is for; null: none.
"""

import json


def report() -> dict[str, object]:
    """What there is to say of torch on this machine."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"event": "torch", "version": None, "cuda": None, "problem": str(error), "devices": []}
    devices, problem = [], ""
    try:
        for index in range(torch.cuda.device_count()):
            with torch.cuda.device(index):
                # Memory that others hold counts: a GPU is seldom alone.
                free, total = torch.cuda.mem_get_info()
                devices.append(
                    {
                        "name": torch.cuda.get_device_name(),
                        "memory_bytes": total,
                        "free_bytes": free,
                        "bfloat16": torch.cuda.is_bf16_supported(),
                    }
                )
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    return {
        "event": "torch",
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "problem": problem,
        "devices": devices,
    }


if __name__ == "__main__":
    print(json.dumps(report()))
