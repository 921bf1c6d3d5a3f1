"""What a scrape says, sample by sample."""

from prometheus_client.parser import text_string_to_metric_families


def values(text: str) -> dict[str, float]:
    """The value of each sample, by its name and its labels in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found
