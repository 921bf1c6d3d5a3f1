"""Turn tags of other people's images into digests: `python -m k8s.images.pin https://REGISTRY`, or `make pin-images`.

It asks the registry itself (OCI distribution specification, https://github.com/opencontainers/distribution-spec) what a
tag is at the moment, and writes that beside the tag. Its one rule: a digest is written only as a registry gave it.
"""

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

K8S = Path(__file__).parents[1]
_TIMEOUT_S = 30.0
# Lists before single manifests: the digest of a list serves every processor that it has an image for.
_ACCEPTED = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DOCKERFILE = re.compile(r"(?m)^(?P<before>ARG \w+_IMAGE=)(?P<name>[^:@\s]+):(?P<tag>[^@\s]+)(?:@\S+)?$")
_KUSTOMIZATION = re.compile(
    r'(?m)^(?P<before>  - name: (?P<name>(?!personae/)\S+)\n    newTag: "?(?P<tag>[^"\s]+)"?)(?:\n    digest: \S+)?$'
)


class RegistryError(Exception):
    """The registry did not say what the tag is."""


def main(argv: list[str]) -> int:
    """Pin every image, or none; 1 where the registry does not tell."""
    if len(argv) != 1 or not re.match(r"https?://", argv[0]):
        print("usage: python -m k8s.images.pin https://REGISTRY", file=sys.stderr)
        return 2
    try:
        changed = {path: pinned(path.read_text(), argv[0].rstrip("/")) for path in files(K8S)}
    except (RegistryError, OSError) as error:
        print(f"nothing was pinned: {error}", file=sys.stderr)
        return 1
    for path, text in changed.items():
        path.write_text(text)
    return 0


def files(folder: Path) -> list[Path]:
    """Where other people's images are named."""
    return sorted([*folder.rglob("*.Dockerfile"), *folder.rglob("kustomization.yaml")])


def pinned(text: str, registry: str) -> str:
    """The text of a Dockerfile or kustomization with a digest at every image's tag. Raises RegistryError, OSError."""

    def in_dockerfile(found: re.Match[str]) -> str:
        digest = digest_of(registry, found["name"], found["tag"])
        return f"{found['before']}{found['name']}:{found['tag']}@{digest}"

    def in_kustomization(found: re.Match[str]) -> str:
        digest = digest_of(registry, found["name"], found["tag"])
        return f"{found['before']}\n    digest: {digest}"

    return _KUSTOMIZATION.sub(in_kustomization, _DOCKERFILE.sub(in_dockerfile, text))


def digest_of(registry: str, name: str, tag: str) -> str:
    """What the registry says that the tag is. Raises RegistryError, OSError."""
    url = f"{registry}/v2/{name}/manifests/{tag}"
    headers = {"Accept": _ACCEPTED}
    try:
        digest = _ask(url, headers)
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        error.close()
        if error.code != 401:
            raise RegistryError(f"{url}: {error.code} {error.reason}") from None
        try:
            digest = _ask(url, headers | {"Authorization": f"Bearer {_token(challenge, registry)}"})
        except urllib.error.HTTPError as refused:
            refused.close()
            raise RegistryError(f"{url}: {refused.code} {refused.reason}") from None
    if not _DIGEST.fullmatch(digest):
        raise RegistryError(f"{url}: found the digest {digest!r}; allowed is sha256: and 64 hexadecimal digits")
    return digest


def _ask(url: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, headers=headers, method="HEAD")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        return str(response.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str, registry: str) -> str:
    """What the registry's own token service gives to anybody."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    # The scheme of the registry at least: a challenge is not to lead to a file or back to plaintext.
    if not realm.startswith((f"{urllib.parse.urlsplit(registry).scheme}://", "https://")):
        raise RegistryError(f"{registry}: wants authentication, and names no service for it: {challenge!r}")
    with urllib.request.urlopen(f"{realm}?{urllib.parse.urlencode(fields)}", timeout=_TIMEOUT_S) as response:
        answer = json.load(response)
    return str(answer.get("token") or answer.get("access_token") or "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
