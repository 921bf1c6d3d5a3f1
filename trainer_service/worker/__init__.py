"""The worker: one program with one contract, which takes a training by its lease and carries it to its end.

`python -m trainer_service.worker TRAINING` does one and exits: 0 done, 42 it failed for good, 75 try again, 143 handed
over. Without TRAINING it stays warm and takes trainings as JSON lines on standard input, until that closes.
"""
