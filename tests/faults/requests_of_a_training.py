"""Regular expressions for the requests that a training is made of, to name failpoints with: of keys, then of bodies."""

PICTURE = r"/datasets/.*/images/"
RECORD = r"/trainings/[^/]+/training\.json$"
EVENTS = r"/events/"
CHECKPOINT_FILE = r"/checkpoints/.*/optimizer\.safetensors$"
CHECKPOINT_MANIFEST = r"/checkpoints/.*/manifest\.json$"
CHECKPOINT_POINTER = r"/checkpoints/latest\.json$"
BLOB = r"/blobs/"
ADAPTER_MANIFEST = r"/versions/.*/manifest\.json$"

STEPPING = r'"kind":\s*"progress",\s*"stage":\s*"stepping"'
SUCCEEDED = r'"state":\s*"succeeded"'
