"""The networks of the families, one small file each; what is known of them without torch is in `base_models/traits`."""
