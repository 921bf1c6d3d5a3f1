"""How weights come from an operator's files to where they compute: found, converted, hashed, placed."""
