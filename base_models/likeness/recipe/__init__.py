"""How the judges of toon pictures are trained: on renders alone, in minutes, by `make judges`."""
