"""Resource names and the object keys built from them."""

from collections.abc import Callable

import pytest

from service_kit import schema
from service_kit.names import (
    AdapterName,
    AdapterVersionName,
    DatasetImageName,
    DatasetName,
    MalformedName,
    ProjectName,
    TrainingName,
    check_id,
    parse_adapter,
)

_HOSTILE_IDS = [
    "../x",
    "..",
    "/abs",
    "a//b",
    "a/b",
    "%2e%2e",
    "nul\0",
    "line\n",
    "\nline",
    "a" * 64,
    "a" * 1025,
    "Upper",
    "",
    " ",
    "-a",
    "ä",
    "a.b",
    "a_b",
    "\N{FULLWIDTH DIGIT ONE}",
]


@pytest.mark.parametrize("text", ["a", "0", "a-b-0", "a" * 63])
def test_an_id_is_returned_as_it_is(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize("text", _HOSTILE_IDS)
def test_a_hostile_id_is_refused_everywhere(text: str) -> None:
    parsers: list[tuple[Callable[[str], object], str]] = [
        (check_id, text),
        (DatasetName.parse, f"projects/default/datasets/{text}"),
        (TrainingName.parse, f"projects/{text}/trainings/a"),
        (AdapterName.parse, f"projects/default/adapters/{text}"),
        (AdapterVersionName.parse, f"projects/default/adapters/{text}/versions/1"),
        (parse_adapter, f"projects/default/adapters/{text}"),
        (DatasetImageName.parse, f"projects/default/datasets/{text}/images/{'0' * 64}"),
    ]
    for parse, name in parsers:
        with pytest.raises(MalformedName) as caught:
            parse(name)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("number", ["0", "01", "-1", "1.0", "", "x", "1000000", "1\n", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_hostile_version_is_refused(number: str) -> None:
    with pytest.raises(MalformedName):
        parse_adapter(f"projects/default/adapters/a/versions/{number}")


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" + "0" * 61])
def test_a_hostile_digest_is_refused(digest: str) -> None:
    with pytest.raises(MalformedName):
        DatasetImageName.parse(f"projects/default/datasets/d/images/{digest}")


@pytest.mark.parametrize(
    "name",
    [
        ProjectName("p"),
        DatasetName("p", "d"),
        DatasetImageName(DatasetName("p", "d"), "0" * 64),
        TrainingName("p", "t"),
        AdapterName("p", "a"),
        AdapterVersionName("p", "a", 12),
    ],
)
def test_a_name_is_parsed_from_what_it_prints(name: ProjectName | DatasetName) -> None:
    assert type(name).parse(str(name)) == name


def test_an_adapter_is_parsed_with_and_without_its_version() -> None:
    assert parse_adapter("projects/p/adapters/a") == AdapterName("p", "a")
    assert parse_adapter("projects/p/adapters/a/versions/3") == AdapterVersionName("p", "a", 3)


def test_no_project_means_the_default_one() -> None:
    assert ProjectName.parse("") == ProjectName("default")


def test_keys_sort_by_number() -> None:
    adapter, training = AdapterName("p", "a"), TrainingName("p", "t")
    manifests = [schema.adapter_manifest(adapter.version(number)) for number in (2, 10, 999_999)]
    segments = [schema.event_segment(training, sequence) for sequence in (1, 2, 10, 1_000_000)]
    entries = [schema.queue_entry(training, moment) for moment in (9, 10, 1_700_000_000_000)]
    for keys in (manifests, segments, entries):
        assert keys == sorted(keys)


def test_keys_are_read_back() -> None:
    name = AdapterVersionName("p", "a", 12)
    folder = schema.adapter_manifest(name).removesuffix("manifest.json")
    assert schema.version_of_folder(folder) == 12
    training = TrainingName("p", "t-1")
    assert schema.training_of_queue_entry(schema.queue_entry(training, 5)) == training
