"""What the inference server has: adapters, brought near, and where they are; base models, and what can be asked."""

import pytest

import personae


@pytest.mark.parametrize("pinned", [False, True])
def test_an_adapter_is_preloaded_by_its_id(client, inference, pinned):
    found = client.preload_adapter("micah", pinned=pinned)
    assert (found.adapter, found.residency, found.pinned) == ("projects/default/adapters/micah", "host", pinned)
    (request,) = inference.requests["PreloadAdapter"]
    assert request.pinned == pinned


def test_what_is_held_is_listed_over_all_pages(client, inference):
    assert [found.adapter for found in client.served_adapters()] == [*inference.held]


def test_what_can_be_asked_of_a_base_model_is_told(client):
    (flux,) = client.served_base_models()
    assert (flux.base_model, flux.default_scheduler, flux.schedulers) == ("flux", "euler", ("euler",))
    assert (flux.max_guidance_scale, flux.takes_negative_prompt) == (1.0, False)


def test_a_client_without_an_inference_service_says_so(trainer_address):
    with personae.Client(trainer_address) as client:
        for call in (lambda: client.preload_adapter("micah"), client.served_adapters, client.served_base_models):
            with pytest.raises(personae.InvalidRequest, match="inference"):
                call()
