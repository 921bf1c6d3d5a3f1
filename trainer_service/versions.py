"""Which version of an adapter a training or an import may publish: reserved before it is made. Blocking.

Its one rule: a reservation is created once and by one, so no two ever publish the same version.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from service_kit import schema
from service_kit.adapter_manifest import (
    AdapterReservation,
    is_abandoned,
    read_manifest,
    read_reservation,
    versions,
)
from service_kit.errors import ResourceExists
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.store import ObjectExists, ObjectStore

# An import publishes at once when it has reserved, whatever is slow was before; one that has not will not.
IMPORT_PUBLISHES_WITHIN = timedelta(minutes=10)


def free_version(
    store: ObjectStore, adapter: AdapterName, claim: AdapterReservation, new_version: bool, now: datetime
) -> int:
    """The version that who makes this claim may take: one it reserved before, or the next. Raises ResourceExists."""
    taken = versions(store, adapter)
    for version in reversed(taken):
        name = adapter.version(version)
        reservation = read_reservation(store, name)
        if reservation is not None and reservation.is_of(claim) and not is_abandoned(store, name):
            return version
        if not new_version and _stands_in_the_way(store, name, reservation, now):
            raise ResourceExists(
                "Adapter", str(adapter), "set new_version to make its next version, or choose another id"
            )
    return taken[-1] + 1 if taken else 1


def reserve_version(
    store: ObjectStore,
    adapter: AdapterName,
    claim: AdapterReservation,
    new_version: bool,
    now: datetime,
    prepare: Callable[[AdapterVersionName], None] = lambda name: None,
) -> int:
    """Reserve a version, or find the one that the same claim reserved before. Raises ResourceExists.

    prepare: called with each version that is about to be reserved, for what has to lie there before.
    """
    while True:
        version = free_version(store, adapter, claim, new_version, now)
        name = adapter.version(version)
        prepare(name)
        try:
            store.create(schema.adapter_reservation(name), claim.to_json())
            return version
        except ObjectExists:
            held = read_reservation(store, name)
            if held is not None and held.is_of(claim):
                return version


def _stands_in_the_way(
    store: ObjectStore, name: AdapterVersionName, reservation: AdapterReservation | None, now: datetime
) -> bool:
    """Whether a version exists or may come to exist."""
    if reservation is None:
        # Without a manifest either it is what an import left that was killed before it reserved.
        return read_manifest(store, name) is not None
    if is_abandoned(store, name):
        return False
    if reservation.reserved_at is None or now - reservation.reserved_at < IMPORT_PUBLISHES_WITHIN:
        return True
    if read_manifest(store, name) is not None:
        return True
    # An import that was killed between its last two writes. From here on its repeat takes another version.
    store.put(schema.adapter_abandonment(name), b"{}")
    return False
