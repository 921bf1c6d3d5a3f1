"""Adapters of base models: their files, under our names and other programs', and how modules wear them."""
