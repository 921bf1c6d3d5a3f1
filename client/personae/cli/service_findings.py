"""What `personae doctor` says of the services' ports, and of the services that answer there."""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from personae.access import Access
from personae.cli.finding import Finding
from personae.cli.health import SERVICES, Health, health
from personae.cli.listening import listener
from personae.cli.local_stack import Addresses, is_free
from personae.cli.options import PORT_OPTIONS

_ANSWER_S = 3.0
_HERE = ("127.", "localhost:", "0.0.0.0:")
_OURS: tuple[Health, ...] = ("serving", "not serving")
_STRANGE: Mapping[Health, tuple[str, str]] = {
    "not serving": ("it is there, but starts or stops", "wait; where it stays so, see its log"),
    "silent": (f"it takes connections, but answers nothing within {_ANSWER_S:g} s", "see its log, and restart it"),
    "another service": ("a server of ours, but not this service", "are --trainer and --inference the other way round?"),
    "no health": ("a gRPC server, but none of ours", "choose another address, or stop that server"),
    "unreachable": (
        "no gRPC answers there in this way",
        "start it (`personae up`), correct the address, or say --tls or --tls-ca where it is served over TLS",
    ),
}


def services(addresses: Mapping[str, str], access: Access) -> Iterator[Finding]:
    """Whether the trainer and the inference service answer, each at its address."""
    states = {name: None if _is_vacant(at) else _asked(at, name, access) for name, at in addresses.items()}
    for name, state in states.items():
        at = addresses[name]
        if state == "serving":
            yield Finding(name, "ok", f"serves at {at}")
        elif state is not None:
            found, remedy = _STRANGE[state]
            yield Finding(name, "wrong", f"{at}: {found}", remedy)
        elif any(other in _OURS for other in states.values()):
            remedy = "the other service runs: see this one's log, and restart `personae up`"
            yield Finding(name, "wrong", f"nothing runs at {at}", remedy)
        else:
            yield Finding(name, "warning", f"nothing runs at {at}", "start it: personae up")


def ports(addresses: Addresses, access: Access, *, local_store: bool) -> Iterator[Finding]:
    """Whether `personae up` could listen where it would, or does so already; ports of other machines are left out."""
    wanted: dict[str, str] = {name: at for name, at in asdict(addresses).items() if at and name != "store_port"}
    if local_store:
        wanted["store_port"] = f"127.0.0.1:{addresses.store_port}"
    for name, at in wanted.items():
        check, option = f"port {name.replace('_', ' ').removesuffix(' port')}", PORT_OPTIONS[name]
        if not _is_address(at):
            yield Finding(check, "wrong", f"found {at!r}; allowed is host:port", f"correct {option}")
        elif not at.startswith(_HERE):
            continue
        elif is_free(*_split(at)):
            yield Finding(check, "ok", f"{at} is free")
        else:
            holder = listener(_split(at)[1])
            if _is_ours(name, at, access):
                yield Finding(check, "ok", f"{at} is in use by ours ({holder})")
            else:
                yield Finding(check, "wrong", f"{at} is taken by {holder}", f"stop that, or choose another: {option}")


def _is_ours(name: str, at: str, access: Access) -> bool:
    """Whether what listens there is what `personae up` would start there."""
    service, _, purpose = name.partition("_")
    if name == "store_port":
        return "SeaweedFS" in _fetched(at).get("Server", "")
    if purpose == "metrics":
        return "personae_build_info" in _fetched(f"{at}/metrics").get("body", "")
    return _asked(at, service, Access() if purpose else access) in _OURS


def _fetched(place: str) -> dict[str, str]:
    """Headers and body of what an HTTP server answers; nothing where there is none."""
    try:
        with urllib.request.urlopen(f"http://{place}", timeout=_ANSWER_S) as answer:
            return {**answer.headers, "body": answer.read(2**20).decode(errors="replace")}
    except urllib.error.HTTPError as refusal:
        with refusal:
            return dict(refusal.headers)
    except (OSError, ValueError):
        return {}


def _asked(at: str, service: str, access: Access) -> Health:
    return health(at, SERVICES[service], _ANSWER_S, access)


def _is_vacant(at: str) -> bool:
    """Whether nothing listens there, where that is this machine."""
    return _is_address(at) and at.startswith(_HERE) and is_free(*_split(at))


def _is_address(at: str) -> bool:
    host, _, port = at.rpartition(":")
    return bool(host) and port.isdigit() and int(port) <= 65535


def _split(at: str) -> tuple[str, int]:
    host, _, port = at.rpartition(":")
    return host, int(port)
