"""The command `personae`, installed with the extra `cli`.

Everything it does to a service, it does through `personae.Client`.
"""
