"""What to type to use an adapter: in a shell, in Python, elsewhere. Pure.

Its one rule: what a caller wrote is quoted for where it is pasted.
"""

import shlex
from dataclasses import dataclass

from trainer_service.training_record import TrainingRecord


@dataclass(frozen=True)
class Usage:
    """Texts to paste."""

    prompt: str
    """One that shows the subject."""
    command: str
    python: str
    export: str


def usage(record: TrainingRecord) -> Usage:
    """How to use the adapter of a training."""
    name = str(record.adapter)
    prompts = record.config.sample_prompts
    prompt = prompts[0] if prompts else record.prompt("")
    return Usage(
        prompt=prompt,
        command=f"personae generate {shlex.quote(prompt)} \\\n  --adapter {name}",
        python="\n".join(
            [
                "import personae",
                "",
                f"adapter = {name!r}",
                f"prompt = {prompt!r}",
                'with personae.Client("127.0.0.1:50051", "127.0.0.1:50052") as client:',
                "    for image in client.generate(prompt, adapter=adapter):",
                '        image.save(f"{image.index}.png")',
            ]
        ),
        export=f"personae export --format kohya \\\n  {name}",
    )
