"""The command `personae`: everything it does to a service, it does through `personae.Client`."""
