"""Settings from TORCHLIGHT_* variables: the only place in the project that reads the environment.

The README's table is compared with this class by a test: names, defaults and descriptions.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.checkpoint import PRETRAINED
from model.errors import TorchlightError
from model.images import MAX_PIXELS

PREFIX = "TORCHLIGHT_"
PILLOW_MAX_PIXELS = 89_478_485  # above it Pillow itself warns of a decompression bomb


class InvalidSettings(TorchlightError):
    """A setting has a value it cannot have."""


class Settings(BaseSettings):
    """What an operator may choose; read :func:`read_settings` for errors in one line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    checkpoint: Path = Field(default=PRETRAINED, description="The `.safetensors` file to serve.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where the network runs: `auto` takes the first GPU there is, else the CPU."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    max_body_bytes: int = Field(
        default=20_000_000, ge=1, description="Largest request body; counted while it arrives, refused with 413."
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
        default=256, ge=1, description="Most images that wait for the network; more are refused with 503."
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

    @model_validator(mode="after")
    def _batch_request_fits_the_queue(self) -> Self:
        if self.max_files > self.queue_size:
            raise ValueError(
                f"{PREFIX}MAX_FILES is {self.max_files}, but only {self.queue_size} images may wait; "
                f"raise {PREFIX}QUEUE_SIZE"
            )
        return self

    @model_validator(mode="after")
    def _upload_fits_the_store(self) -> Self:
        if self.max_body_bytes > self.store_max_bytes:
            raise ValueError(
                f"{PREFIX}MAX_BODY_BYTES is {self.max_body_bytes}, but only {self.store_max_bytes} bytes of uploads "
                f"are kept; raise {PREFIX}STORE_MAX_BYTES"
            )
        return self

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
        raise InvalidSettings("; ".join(_describe(one) for one in error.errors())) from error


def _describe(error: Any) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"])
    return f"{PREFIX}{str(error['loc'][0]).upper()} is {error['input']!r}: {error['msg']}"
