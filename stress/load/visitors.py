"""Who comes to the service: good clients and bad ones, slow ones and those that vanish, and now and then a crowd.

Beside each request stands what is intended. They take the network that ships and the settings below for granted.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from stress.load import drawings
from stress.load.client import Answer, Client, Connection, build, chunked, client, form
from stress.load.world import CLOSED, LEFT, REFUSALS, World

MAX_BODY_BYTES = 2_000_000
QUEUE_SIZE = 128
SETTINGS = {"max_body_bytes": MAX_BODY_BYTES, "queue_size": QUEUE_SIZE, "store_max_bytes": 64_000_000}

BATCH = 8
CROWD = 250  # for each worker: more than may wait
CROWD_PAUSE_S = 20.0
SLOW_BYTES, SLOW_PAUSE_S = 5, 0.5
SLOW_PATIENCE_S = 40.0
FASTEST_S = 0.2  # between two requests of those who are no good: the service is there for the others
NEW_CONNECTION_SHARE = 0.2

Visit = Callable[[World, Client, random.Random], Coroutine[Any, Any, None]]


async def keep_coming(world: World, visit: Visit, seed: int) -> None:
    """Visit again and again, until cancelled."""
    dice = random.Random(seed)
    async with client(world.host, world.port) as one:
        while True:
            if dice.random() < NEW_CONNECTION_SHARE:
                one.close()
            try:
                await visit(world, one, dice)
            except ConnectionRefusedError as error:
                world.tally.note("connecting", CLOSED, str(error))
                await asyncio.sleep(FASTEST_S)


async def good(world: World, one: Client, dice: random.Random) -> None:
    """Ask for something that there is."""
    visits = {predict: 80, predict_batch: 6, predict_mixed_batch: 2, look: 6, look_without_storing: 2, read: 12}
    (visit,) = dice.choices(list(visits), list(visits.values()))
    await visit(world, one, dice)


async def predict(world: World, one: Client, dice: random.Random) -> None:
    """Have one image classified, two in three of them small."""
    size, images = dice.choice([("small", world.small), ("small", world.small), ("photo", world.photos)])
    name, image = dice.choice(list(images.items()))
    how, request = dice.choice([("form", form("/v1/predict", "file", image)), ("raw", raw(image))])
    check = partial(_is_prediction, world, name)
    await world.ask(one, f"predict, {size}, {how}", request, 200, check=check)


async def predict_batch(world: World, one: Client, dice: random.Random) -> None:
    """Have several images classified at once."""
    names = dice.choices(list(world.images), k=BATCH)

    def check(answer: Answer) -> str:
        results = zip(names, answer.json()["results"], strict=True)
        return "; ".join(filter(None, (world.compare_file(name, result) for name, result in results)))

    request = form("/v1/predict/batch", "files", *(world.images[name] for name in names))
    await world.ask(one, f"batch of {BATCH}", request, 200, check=check)


async def predict_mixed_batch(world: World, one: Client, dice: random.Random) -> None:
    """Have two images classified, and something between them that is none."""
    names = dice.choices(list(world.images), k=2)

    def check(answer: Answer) -> str:
        first, middle, last = answer.json()["results"]
        wrong = "" if middle["problem"]["status"] in (415, *REFUSALS) else f"garbage gave {middle}"
        pairs = zip(names, (first, last), strict=True)
        return wrong or "; ".join(filter(None, (world.compare_file(name, result) for name, result in pairs)))

    files = (world.images[names[0]], dice.randbytes(500), world.images[names[1]])
    await world.ask(one, "batch, one file bad", form("/v1/predict/batch", "files", *files), 200, check=check)


async def look(world: World, one: Client, dice: random.Random) -> None:
    """Store a photo that was never there before, and look into it."""
    name = dice.choice(list(world.photos))
    request = form("/v1/images", "file", next(world.variants[name]))
    stored = await world.ask(one, "store", request, 201)
    if stored is None:
        return
    path = stored.headers["location"]
    await world.ask(
        one, "stored: prediction", build("GET", f"{path}/prediction"), 200, check=partial(_is_prediction, world, name)
    )
    pictures = ("input.png", "activations/conv1.png", "activations/relu6/5.png", "attributions/hires_cam.png")
    view = dice.choice(pictures)
    picture = await world.ask(one, "stored: picture", build("GET", f"{path}/{view}"), 200, check=_is_png)
    if picture is not None:
        again = build("GET", f"{path}/{view}", if_none_match=picture.headers["etag"])
        await world.ask(one, "stored: unchanged", again, 304)
    numbers = ("activations/conv1.npy", "attributions/grad_cam.json", "trace/conv4/5/3/3", "input.json")
    await world.ask(one, "stored: numbers", build("GET", f"{path}/{dice.choice(numbers)}"), 200)


async def look_without_storing(world: World, one: Client, dice: random.Random) -> None:
    """Ask for the maps of an image that is not to be kept."""
    image = dice.choice(list(world.images.values()))
    await world.ask(one, "maps at once", raw(image, "/v1/activations"), 200, check=_is_png)


async def read(world: World, one: Client, dice: random.Random) -> None:
    """Read what the service says of itself."""
    paths = ("/", "/livez", "/readyz", "/metrics", "/v1/model", "/v1/layers", "/v1/layers/conv1/filters.png")
    path = dice.choice(paths)
    await world.ask(one, f"GET {path}", build("GET", path), 200)


async def bad(world: World, one: Client, dice: random.Random) -> None:
    """Ask for something that must be refused, each in its own way."""
    photo = dice.choice(list(world.photos.values()))
    large = photo * (MAX_BODY_BYTES // len(photo) + 1)
    requests: list[tuple[str, Callable[[], bytes], int]] = [
        ("garbage", lambda: raw(dice.randbytes(5000)), 415),
        ("truncated", lambda: raw(photo[: dice.randrange(2000, len(photo) * 9 // 10)]), 422),
        ("too many pixels", lambda: raw(drawings.too_many_pixels()), 413),
        ("too large, declared", lambda: raw(large), 413),
        ("too large, undeclared", lambda: chunked("/v1/predict", large), 413),
        ("wrong type", lambda: build("POST", "/v1/predict", b"{}", content_type="application/json"), 415),
        ("wrong field", lambda: form("/v1/predict", "photo", photo), 422),
        ("no form", lambda: build("POST", "/v1/predict", b"?", content_type="multipart/form-data; boundary=x"), 400),
        ("wrong parameter", lambda: raw(photo, "/v1/predict?top_k=none"), 422),
        ("unknown image", lambda: build("GET", f"/v1/images/sha256:{'0' * 64}/prediction"), 404),
        ("unknown layer", lambda: build("GET", "/v1/layers/conv99/filters.png"), 404),
        ("unknown path", lambda: build("GET", "/v1/nothing"), 404),
        ("wrong method", lambda: build("PUT", "/v1/predict", b""), 405),
    ]
    kind, request, status = dice.choice(requests)
    await world.ask(one, f"bad: {kind}", request(), status, check=partial(_is_problem, status))
    await asyncio.sleep(FASTEST_S)


async def slow(world: World, _: Client, dice: random.Random) -> None:
    """Upload ten bytes a second: a tiny image, which is there in time, or a photo, which must not be waited for."""
    kind, image = dice.choice([("slow: tiny image", world.tiny), ("slow: photo", world.photos["photo 0"])])
    connection = await Connection.open(world.host, world.port)
    answering = asyncio.create_task(connection.answer())
    started = time.monotonic()
    try:
        await connection.send(raw(image)[: -len(image)])
        for start in range(0, len(image), SLOW_BYTES):
            await connection.send(image[start : start + SLOW_BYTES])
            await asyncio.wait({answering}, timeout=SLOW_PAUSE_S)
            if answering.done() or time.monotonic() - started > SLOW_PATIENCE_S:
                break
        else:
            await asyncio.wait({answering}, timeout=SLOW_PATIENCE_S)
        _note_slow(world, kind, answering)
    except ConnectionError:
        await asyncio.wait({answering}, timeout=SLOW_PAUSE_S)  # an answer may have come before
        _note_slow(world, kind, answering)
    finally:
        answering.cancel()
        connection.vanish()


def _note_slow(world: World, kind: str, answering: "asyncio.Task[Answer]") -> None:
    if not answering.done():
        world.tally.note(kind, LEFT, f"still waited for after {SLOW_PATIENCE_S:g} s")
    elif answering.exception() is not None:
        world.tally.note(kind, CLOSED, "an answer was due" if kind == "slow: tiny image" else "")
    else:
        answer, intended = answering.result(), 200 if kind == "slow: tiny image" else 408
        is_intended = answer.status in (intended, *REFUSALS)
        world.tally.note(kind, str(answer.status), "" if is_intended else repr(answer.body[:300]))


async def vanishing(world: World, _: Client, dice: random.Random) -> None:
    """Leave in the middle of an upload, or before the answer."""
    request = raw(dice.choice(list(world.photos.values())))
    kind, sent = dice.choice([("mid-upload", request[: len(request) // 2]), ("before the answer", request)])
    connection = await Connection.open(world.host, world.port)
    try:
        await connection.send(sent)
        await asyncio.sleep(dice.uniform(0, FASTEST_S))
    finally:
        connection.vanish()
    world.tally.note(f"vanishing: {kind}", LEFT)
    await asyncio.sleep(FASTEST_S)


async def crowd(world: World, _: Client, dice: random.Random, *, workers: int) -> None:
    """Come all at once, more than may wait; who is refused does not come again."""
    request = raw(world.small["png 32x32"])

    async def one() -> None:
        async with client(world.host, world.port) as single:
            await world.ask(single, "crowd", request, 200, check=partial(_is_prediction, world, "png 32x32"))

    await asyncio.gather(*(one() for _ in range(CROWD * workers)))
    await asyncio.sleep(CROWD_PAUSE_S)


def raw(image: bytes, path: str = "/v1/predict") -> bytes:
    """Return a POST of an image as the whole body."""
    return build("POST", path, image, content_type="application/octet-stream")


def _is_prediction(world: World, name: str, answer: Answer) -> str:
    return world.compare(name, answer.json()["predictions"])


def _is_png(answer: Answer) -> str:
    return "" if answer.body.startswith(b"\x89PNG") else f"no PNG: {answer.body[:40]!r}"


def _is_problem(status: int, answer: Answer) -> str:
    is_one = answer.headers.get("content-type") == "application/problem+json"
    return "" if is_one and json.loads(answer.body)["status"] == status else f"no problem: {answer.body[:300]!r}"
