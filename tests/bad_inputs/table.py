"""The table of bad inputs: every row that is one call to services as they are in this folder."""

from tests.bad_inputs import config_cases, inference_cases, stream_cases, trainer_cases, wire_cases

CASES = [
    *trainer_cases.CASES,
    *stream_cases.CASES,
    *config_cases.CASES,
    *inference_cases.CASES,
    *wire_cases.CASES,
]
