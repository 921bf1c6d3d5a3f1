"""Thousands of prompts: requests of a bounded size, a bounded number at a time, and nothing asked for twice."""

import threading
from collections import deque

import grpc
import pytest
from client_fakes import fail, retry_info, unavailable
from fake_inference import FakeInference
from google.rpc import error_details_pb2

import personae


class WatchedInference(FakeInference):
    """Knows how many of its calls are open; `bad` texts are refused, and so, late, are seeds that are `not_finite`."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: set[str] = set()
        self.not_finite: set[int] = set()
        self.open = self.most_open = 0
        self._lock = threading.Lock()

    def Generate(self, request, context):
        with self._lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            fields = [f"prompts[{place}].text" for place, found in enumerate(request.prompts) if found.text in self.bad]
            if fields:
                self.requests["Generate"].append(request)
                self._refuse(context, "INVALID_ARGUMENT", [(field, "found too much") for field in fields])
            for message in super().Generate(request, context):
                if message.image.seed in self.not_finite and message.WhichOneof("kind") == "image":
                    self._refuse(context, "FAILED_PRECONDITION", [], "NOT_FINITE")
                yield message
        finally:
            with self._lock:
                self.open -= 1

    @staticmethod
    def _refuse(context, code, violations, reason="REFUSED"):
        bad = error_details_pb2.BadRequest(
            field_violations=[{"field": field, "description": text} for field, text in violations]
        )
        info = error_details_pb2.ErrorInfo(reason=reason, domain="personae")
        fail(context, grpc.StatusCode[code], "in plain words", info, bad)


@pytest.fixture
def inference():
    return WatchedInference()


def full(seconds):
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="personae")
    return lambda context: fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info, retry_info(seconds))


def pairs(requests):
    return sorted((prompt.text, seed) for request in requests for prompt in request.prompts for seed in prompt.seeds)


def drained(images):
    """What came before it ended as Incomplete, and that."""
    came = []
    with pytest.raises(personae.Incomplete) as raised:
        deque(map(came.append, images), maxlen=0)
    return came, raised.value


def test_every_image_of_every_prompt_comes_once_with_its_place_among_all(client, inference):
    prompts = [("own seeds", [7, 8, 9]) if place == 1 else f"prompt {place}" for place in range(1000)]
    images = sorted(client.generate_many(prompts, seeds=[5], concurrency=3), key=lambda image: image.index)
    assert [image.index for image in images] == list(range(1002))
    assert [(image.prompt_index, image.prompt, image.seed) for image in images[:5]] == [
        (0, "prompt 0", 5),
        (1, "own seeds", 7),
        (1, "own seeds", 8),
        (1, "own seeds", 9),
        (2, "prompt 2", 5),
    ]
    assert (images[-1].prompt_index, images[-1].content) == (999, b"prompt 999/5")
    sizes = [sum(len(prompt.seeds) for prompt in request.prompts) for request in inference.requests["Generate"]]
    assert max(sizes) <= 8
    assert inference.most_open <= 3


def test_a_prompt_of_very_many_seeds_is_asked_for_in_several_requests(client, inference):
    images = list(client.generate_many(["a", ("b", range(500)), "c"], seeds=[7]))
    found = [(image.index, image.prompt_index, image.seed) for image in images]
    assert sorted(found) == [(0, 0, 7), *((1 + seed, 1, seed) for seed in range(500)), (501, 2, 7)]
    assert max(len(prompt.seeds) for request in inference.requests["Generate"] for prompt in request.prompts) == 8


def test_a_prompt_with_more_drawn_seeds_than_a_request_is_to_have_goes_alone(client, inference):
    images = list(client.generate_many(["a", "b"], images_per_prompt=12))
    assert sorted((image.index, image.prompt) for image in images) == [
        (place, "ab"[place // 12]) for place in range(24)
    ]
    assert [len(request.prompts) for request in inference.requests["Generate"]] == [1, 1]


def test_no_more_prompts_are_read_than_are_asked_for(client, inference):
    read = []

    def endless():
        while True:
            read.append(1)
            yield "a"

    images = client.generate_many(endless(), seeds=[1, 2], concurrency=2)
    next(images)
    # Two requests of eight images, a third once one of them has ended, and for each the prompt that did not fit in.
    assert len(read) <= 13
    images.close()


def test_after_a_cut_only_the_missing_pairs_are_asked_for(client, inference):
    inference.cut_after = [3, 0, 5]
    images = list(client.generate_many([str(place) for place in range(30)], seeds=[1]))
    assert sorted(image.index for image in images) == list(range(30))
    assert len({image.content for image in images}) == 30
    # 30 pairs in four requests; each that was cut was repeated for what it had not brought.
    assert len(pairs(inference.requests["Generate"])) == 30 + sum(
        len(request.prompts) for request in inference.requests["Generate"][4:]
    )
    assert len(inference.requests["Generate"]) == 7


def test_a_full_server_is_left_alone_as_long_as_it_asks_and_asked_again(client, inference, pauses):
    inference.instead["Generate"] = [full(0.75), unavailable(), full(0.5)]
    assert len(list(client.generate_many(["a", "b"], concurrency=1))) == 2
    assert (pauses[0], pauses[2] >= 0.5) == (0.75, True)
    assert len(inference.requests["Generate"]) == 4


def test_a_server_that_stays_full_exhausts_the_patience(connect, inference, inference_address):
    inference.instead["Generate"] = [full(0.1) for _ in range(100)]
    patience = personae.Patience(busy_s=0.3, first_pause_s=0.01)
    with (
        connect(inference=inference_address, patience=patience) as client,
        pytest.raises(personae.Busy),
    ):
        list(client.generate_many(["a"]))
    assert 2 <= len(inference.requests["Generate"]) <= 4


def test_a_bad_prompt_costs_no_other_its_image(client, inference):
    inference.bad = {"prompt 3", "prompt 11"}
    came, error = drained(client.generate_many([f"prompt {place}" for place in range(20)], seeds=[1, 2]))
    assert len(came) == 36
    assert "prompt 3: prompts" in str(error)
    missing = sorted(error.missing, key=lambda found: found.prompt_index)
    assert [(found.prompt_index, found.prompt, found.seeds) for found in missing] == [
        (3, "prompt 3", (1, 2)),
        (11, "prompt 11", (1, 2)),
    ]
    assert isinstance(missing[0].error, personae.InvalidRequest)


def test_an_image_that_cannot_be_made_is_missing_alone(client, inference):
    inference.not_finite = {101}
    came, error = drained(client.generate_many(["a", "b"], images_per_prompt=3))
    assert sorted(image.index for image in came) == [0, 2, 3, 5]
    assert sorted((found.prompt, found.seeds) for found in error.missing) == [("a", (101,)), ("b", (101,))]


def test_an_error_that_concerns_every_prompt_ends_it_at_once(client, inference):
    inference.instead["Generate"] = [lambda context: fail(context, grpc.StatusCode.NOT_FOUND, "no such adapter")]
    with pytest.raises(personae.NotFound, match="no such adapter"):
        list(client.generate_many((str(place) for place in range(10_000)), adapter="micah", concurrency=1))
    assert len(inference.requests["Generate"]) == 1


def test_settings_that_make_every_prompt_too_costly_are_no_prompts_fault(client, inference):
    costly = [(field, "cost too many passes") for field in ("prompts", "steps", "width")]
    inference.instead["Generate"] = [lambda context: inference._refuse(context, "INVALID_ARGUMENT", costly)] * 3
    with pytest.raises(personae.InvalidRequest, match="steps"):
        list(client.generate_many(["a", "b"], concurrency=1))
    # Together, and then the first of them alone.
    assert len(inference.requests["Generate"]) == 2


def test_leaving_it_cancels_every_open_call(client, inference):
    begun, left = threading.Semaphore(0), []

    def hang(context):
        cancelled = threading.Event()
        context.add_callback(cancelled.set)
        left.append(cancelled)
        begun.release()
        cancelled.wait(30)

    def wait_for_the_others(context):
        assert all(begun.acquire(timeout=10) for _ in range(2))

    inference.instead["Generate"] = [wait_for_the_others, hang, hang]
    images = client.generate_many((str(place) for place in range(10_000)), concurrency=3)
    next(images)
    images.close()
    assert [cancelled.wait(10) for cancelled in left] == [True, True]
    assert len(inference.requests["Generate"]) == 3


@pytest.mark.parametrize(
    ("prompts", "given", "field"),
    [("one text", {}, "prompts"), (["a"], {"concurrency": 0}, "concurrency"), (["a"], {"mask": b"m"}, "mask")],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(client, inference, prompts, given, field):
    with pytest.raises(personae.InvalidRequest, match=field):
        client.generate_many(prompts, **given)
    assert not inference.requests


def test_a_seed_that_fits_no_field_names_its_prompt(client):
    with pytest.raises(personae.InvalidRequest, match=r"prompts\[1\]"):
        list(client.generate_many(["a", ("b", [2**63])]))
