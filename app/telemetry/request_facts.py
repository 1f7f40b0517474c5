"""What is known of one request beside its answer: for its line in the log, its metrics and its trace.

The request log makes one value for each request; authentication, problems and routes fill it in. Knows no route.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

STATE_KEY = "request_facts"  # in the ASGI scope's "state"; read it with get_request_facts


@dataclass(frozen=True)
class ImageFacts:
    """One classified image.

    Attributes:
        stages_s: seconds by stage, in their order; each stage ends where the next one begins.
        ended: when the last stage ended, by ``time.perf_counter``.
    """

    id: str
    batch_size: int
    stages_s: Mapping[str, float]
    ended: float


@dataclass
class RequestFacts:
    """One request; a field is None until it is known.

    Attributes:
        client: name of the API key that was sent.
        code: that of the problem that was sent.
        model: digest of the network that classified ``images``.
    """

    request_id: str
    client: str | None = None
    code: str | None = None
    model: str | None = None
    images: Sequence[ImageFacts] = ()

    def logged(self) -> dict[str, object]:
        """Return what the log says of the client and of the images; of many images, the longest times."""
        facts: dict[str, object] = {} if self.client is None else {"client": self.client}
        if self.model is not None:
            facts |= {"model": self.model, "images": len(self.images)}
        if len(self.images) == 1:
            facts["image"] = self.images[0].id
        for stage in self.images[0].stages_s if self.images else ():
            facts[f"{stage}_ms"] = round(1000 * max(image.stages_s[stage] for image in self.images), 2)
        if self.images:
            facts["batch_size"] = max(image.batch_size for image in self.images)
        return facts


def get_request_facts(scope: MutableMapping[str, Any]) -> RequestFacts:
    """Return the facts of the request with this ASGI scope. The request log has made them."""
    facts: RequestFacts = scope["state"][STATE_KEY]
    return facts


def set_request_facts(scope: MutableMapping[str, Any], facts: RequestFacts) -> None:
    """Let everything behind this point fill in these facts."""
    scope.setdefault("state", {})[STATE_KEY] = facts
