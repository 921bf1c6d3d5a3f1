"""What both services need: the bucket's schema, the object store, errors, names, settings, server boot and drain.

Nothing enters unless both services import it.
"""
