"""What all clients share: the address of the service, the files they send, and the tally of answers.

Each client says which answer is right. A good client that is refused (503 or 504) waits as long as the answer says and
comes again. Such refusals are counted apart, since an overloaded service may refuse, but not often.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stress.load import drawings
from stress.load.client import Answer, Client, Closed

TOLERANCE = 1e-5  # of a probability: among other images of a batch it may round differently
REFUSALS = (503, 504)
CLOSED, LEFT, HANGS = "closed", "client left", "hangs"
SHOWN_MISTAKES = 3  # of each kind

Check = Callable[[Answer], str]  # says what is wrong with an answer; nothing if it is right


@dataclass
class Tally:
    """What was answered.

    Attributes:
        answers: requests by kind and answer.
        unintended: those of them that should have been answered otherwise.
        seconds: that each answer took, by kind.
        mistakes: the first unintended ones of each kind, in words.
        files_refused: of batches, each with 503 or 504 in a batch that was answered.
    """

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    unintended: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    mistakes: list[str] = field(default_factory=list)
    files_refused: int = 0

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return self.answers.total()

    def note(self, kind: str, answer: str, mistake: str = "") -> None:
        """Count one request."""
        self.answers[kind, answer] += 1
        if mistake:
            self.unintended[kind, answer] += 1
            if self.unintended[kind, answer] <= SHOWN_MISTAKES:
                self.mistakes.append(f"{kind}: {answer}: {mistake}")


class World:
    """See the module's docstring."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.small, self.photos, self.tiny = drawings.small_images(), drawings.photos(), drawings.tiny_image()
        self.images = self.small | self.photos
        self.variants = {name: drawings.variants(photo) for name, photo in self.photos.items()}
        self.first: dict[str, list[float]] = {}  # image -> its probabilities by class, as first answered
        self.tally = Tally()

    def compare(self, name: str, predictions: list[dict[str, Any]]) -> str:
        """Return in which way this is not the first answer for that image; nothing if it is."""
        probabilities = [one["probability"] for one in sorted(predictions, key=lambda one: one["index"])]
        first = self.first.setdefault(name, probabilities)
        off = max(abs(a - b) for a, b in zip(first, probabilities, strict=True))
        return f"{name}: a probability is {off:.1e} from that of the first answer" if off > TOLERANCE else ""

    def compare_file(self, name: str, result: dict[str, Any]) -> str:
        """Return what is wrong with one result of a batch; a file may be refused alone."""
        if "problem" in result and result["problem"]["status"] in REFUSALS:
            self.tally.files_refused += 1
            return ""
        return self.compare(name, result["predictions"])

    async def ask(
        self, client: Client, kind: str, request: bytes, *statuses: int, check: Check | None = None
    ) -> Answer | None:
        """Make one request and note its answer.

        Args:
            statuses: what may be answered, beside a refusal.
            check: what the body must be.

        Returns:
            The answer; None if it is a refusal or a mistake.
        """
        started = time.perf_counter()
        try:
            answer = await client.ask(request)
        except TimeoutError:
            self.tally.note(kind, HANGS, "an answer was due")
        except (Closed, OSError) as error:
            self.tally.note(kind, CLOSED, f"an answer was due ({error})")
        else:
            self.tally.seconds[kind].append(time.perf_counter() - started)
            if answer.status in REFUSALS:
                await self._wait(kind, answer)
            elif mistake := _mistake(answer, statuses, check):
                self.tally.note(kind, str(answer.status), mistake)
            else:
                self.tally.note(kind, str(answer.status))
                return answer
        return None

    async def _wait(self, kind: str, answer: Answer) -> None:
        """Note a refusal and do as it says."""
        wait = answer.headers.get("retry-after", "")
        is_rude = answer.status == 503 and not wait
        self.tally.note(kind, str(answer.status), "without Retry-After" if is_rude else "")
        await asyncio.sleep(float(wait or 0))


def _mistake(answer: Answer, statuses: tuple[int, ...], check: Check | None) -> str:
    if answer.status not in statuses:
        return f"intended was {' or '.join(map(str, statuses))}: {answer.body[:300]!r}"
    try:
        return check(answer) if check is not None else ""
    except (KeyError, TypeError, ValueError) as error:  # the body is not even of the right form
        return f"{error!r}: {answer.body[:300]!r}"
