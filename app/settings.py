"""Settings from TORCHLIGHT_* variables: the only place in the project that reads the environment.

The tables of docs/settings.md are compared with this class by a test: names, defaults and descriptions.
"""

import ipaddress
import math
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from torchlight.app.errors import InvalidSettings
from torchlight.app.security import api_keys, trusted_hosts
from torchlight.model.defaults import COVERAGE, LOWEST_COVERAGE, MAX_PIXELS, PRETRAINED

PREFIX = "TORCHLIGHT_"
KEEP_ALIVE_S = 5  # how long a connection may be idle between two requests
PILLOW_MAX_PIXELS = 89_478_485  # above it Pillow itself warns of a decompression bomb
ORIGIN = r"\*|https?://[a-z0-9.:\[\]-]+"  # no path: browsers compare the whole


def listed(text: str | None) -> tuple[str, ...]:
    """Return the members of a setting that is a list divided by commas."""
    return tuple(text.split(",")) if text else ()


def _list_of(member: str) -> str:
    return f"({member})(,({member}))*"


class Settings(BaseSettings):
    """What an operator may choose; read :func:`read_settings` for errors in one line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    checkpoint: Path = Field(default=PRETRAINED, description="The `.safetensors` file to serve, or `imagenet`.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where the network runs: `auto` takes the first GPU there is, else the CPU."
    )
    engine: Literal["auto", "openvino", "pytorch"] = Field(
        default="auto",
        description="What computes the answers: `auto` takes OpenVINO on a CPU where it gives PyTorch's answers.",
    )
    precision: Literal["float32", "int8"] = Field(
        default="float32",
        description="`int8` answers several times as fast, on a CPU, by what `torchlight quantise` wrote; views stay "
        "float32.",
    )
    coverage: float = Field(
        default=COVERAGE,
        ge=LOWEST_COVERAGE,
        lt=1,
        description="Share of images whose `set` of labels shall hold the true one; a request may ask for another.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        default=1, ge=1, description="Processes that answer, each with its own network; one more watches them."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads that compute in each process; unset, its share of the container's quota or the CPUs.",
    )
    max_body_bytes: int = Field(
        default=20_000_000, ge=1, description="Largest request body; counted while it arrives, refused with 413."
    )
    max_bytes_in_flight: int = Field(
        default=256_000_000,
        ge=1,
        description="Most bytes of bodies that all requests of a process hold at once; more are refused with 503.",
    )
    upload_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that each have to bring 100 kB of a body, or its end; a slower upload is 408.",
    )
    max_connections: int = Field(
        default=900, ge=1, description="Most clients connected to a process at once; more are refused with 503."
    )
    max_pixels: int = Field(
        default=MAX_PIXELS,
        ge=1,
        le=PILLOW_MAX_PIXELS,
        description="Largest width x height of an image; checked before its pixels are decoded, refused with 413.",
    )
    max_files: int = Field(default=64, ge=1, description="Most files in one batch request.")
    max_batch_size: int = Field(default=32, ge=1, description="Most images the network computes together.")
    queue_size: int = Field(
        default=256,
        ge=1,
        description="Most images that wait for a decoder, or for the network; more are refused with 503, if possible "
        "at the head of their request.",
    )
    deadline_s: float = Field(
        default=10.0, gt=0, le=3600, description="Seconds from the end of the upload to the answer; later it is 504."
    )
    store_dir: Path | None = Field(
        default=None,
        description="Folder for uploads to look into; unset, `torchlight-<user id>` in the system's temporary one.",
    )
    store_max_bytes: int = Field(
        default=256_000_000, ge=1, description="Most bytes of uploads that are kept; the oldest make room."
    )
    store_max_age_s: float = Field(
        default=86_400.0, gt=0, allow_inf_nan=False, description="Seconds after which an upload is removed."
    )
    view_cache_bytes: int = Field(
        default=64_000_000, ge=0, description="Memory for images and layer outputs that were looked at lately."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="One line for each request on standard output: `text` to read, `json` to collect."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+/?$",
        description="OpenTelemetry collector for spans, such as `http://127.0.0.1:4318`; needs the extra `otel`.",
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="Keys that open the service, divided by commas: `key` or `name=key`, or `sha256:` and its hash.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of such keys, one a line; read again within a second after it changes."
    )
    open_routes: str = Field(
        default="probes,docs",
        pattern=rf"^(none|{_list_of('probes|metrics|docs')})$",
        description="What needs no key and is not counted: `probes`, `metrics`, `docs`, or `none`.",
    )
    rate_limit: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$",
        description="Most requests of one client, such as `60/minute`, in each process; more are refused with 429.",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="Addresses or networks of proxies whose `X-Forwarded-For` is believed, divided by commas.",
    )
    allowed_hosts: str = Field(
        default="*",
        pattern=rf"^{_list_of(trusted_hosts.PATTERN)}$",
        description="Names it answers under, divided by commas: `photos.example.org`, `*.example.org`, `*` for any.",
    )
    cors_origins: str | None = Field(
        default=None,
        pattern=rf"^{_list_of(ORIGIN)}$",
        description="Other sites whose pages may use it, divided by commas: `https://example.org`, `*` for any.",
    )

    @field_validator("api_keys")
    @classmethod
    def _keys_can_be_read(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            api_keys.parse_keys(value.get_secret_value(), f"{PREFIX}API_KEYS")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, value: str | None) -> str | None:
        for network in listed(value):
            ipaddress.ip_network(network)
        return value

    @model_validator(mode="after")
    def _limits_fit_into_each_other(self) -> Self:
        for part, whole in (
            ("max_files", "queue_size"),  # else no batch request of that size is ever answered
            ("max_body_bytes", "max_bytes_in_flight"),
            ("max_body_bytes", "store_max_bytes"),
        ):
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{PREFIX}{part.upper()} is {getattr(self, part)}, over {PREFIX}{whole.upper()}, "
                    f"which is {getattr(self, whole)}; raise the second or lower the first"
                )
        return self

    @property
    def has_keys(self) -> bool:
        """Whether requests need an API key."""
        return self.api_keys is not None or self.api_keys_file is not None

    @property
    def drain_s(self) -> int:
        """Seconds within which what was accepted is answered after SIGTERM: a deadline, and slow uploads."""
        return math.ceil(self.deadline_s) + 5

    @property
    def store_folder(self) -> Path:
        """Where uploads are kept: ``store_dir``, or a folder of this user's own."""
        user = os.getuid() if hasattr(os, "getuid") else 0  # Windows' temporary folder is the user's already
        return self.store_dir or Path(tempfile.gettempdir()) / f"torchlight-{user}"


def read_settings(**given: Any) -> Settings:
    """Return the settings: what is given here first, then the environment, then the defaults.

    Raises:
        InvalidSettings: a value is not one the setting can have; the message names each.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InvalidSettings("; ".join(_describe_error(one) for one in error.errors())) from error


def _describe_error(error: Any) -> str:
    if not error["loc"] or error["loc"] == ("api_keys",):  # the input would be the keys
        return str(error["ctx"]["error"])
    return f"{PREFIX}{str(error['loc'][0]).upper()} is {error['input']!r}: {error['msg']}"
