"""A package, so that its pair of services ends with its last test: to pytest, other folders are no packages."""
