"""How toon-64 came to be, from rendered pictures to the committed weights: `make base-model` runs all of it."""
