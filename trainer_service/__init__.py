"""TrainerService: datasets, trainings, adapters. The worker that does the training is the package `worker`.

Only `worker` imports torch; the service itself stays small and answers while a training runs.
"""
