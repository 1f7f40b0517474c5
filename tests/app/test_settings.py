"""Settings: where they come from, what is refused, and that docs/settings.md lists them as they are."""

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from torchlight.app.errors import InvalidSettings
from torchlight.app.settings import Settings, read_settings
from torchlight.model.defaults import PRETRAINED

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TORCHLIGHT_{name.upper()}", raising=False)


def test_what_is_given_counts_before_the_environment_and_the_environment_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHLIGHT_HOST", "0.0.0.0")
    monkeypatch.setenv("TORCHLIGHT_PORT", "9000")
    settings = read_settings(port=9001)
    assert (settings.host, settings.port, settings.device) == ("0.0.0.0", 9001, "auto")


def test_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLIGHT_PORT", "")
    assert read_settings().port == 8000


def test_the_checkpoint_that_ships_is_the_default() -> None:
    assert read_settings().checkpoint == PRETRAINED


REFUSED = {
    "TORCHLIGHT_PORT": "70000",
    "TORCHLIGHT_DEVICE": "tpu",
    "TORCHLIGHT_MAX_BODY_BYTES": "0",
    "TORCHLIGHT_MAX_PIXELS": "89478486",
    "TORCHLIGHT_MAX_FILES": "257",
    "TORCHLIGHT_MAX_BATCH_SIZE": "-1",
    "TORCHLIGHT_QUEUE_SIZE": "63",
    "TORCHLIGHT_DEADLINE_S": "nan",
    "TORCHLIGHT_STORE_MAX_BYTES": "19999999",
    "TORCHLIGHT_STORE_MAX_AGE_S": "inf",
    "TORCHLIGHT_VIEW_CACHE_BYTES": "-1",
    "TORCHLIGHT_LOG_FORMAT": "xml",
    "TORCHLIGHT_API_KEYS": "alice=hunter2",
    "TORCHLIGHT_OPEN_ROUTES": "probes,all",
    "TORCHLIGHT_RATE_LIMIT": "0/minute",
    "TORCHLIGHT_TRUSTED_PROXIES": "127.0.0.1,*",
    "TORCHLIGHT_ALLOWED_HOSTS": "https://example.org",
    "TORCHLIGHT_CORS_ORIGINS": "https://example.org/",
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_value_out_of_range_is_refused_in_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as refused:
        read_settings()
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_all_bad_values_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLIGHT_PORT", "x\ny")
    monkeypatch.setenv("TORCHLIGHT_DEVICE", "tpu")
    with pytest.raises(InvalidSettings, match=r"TORCHLIGHT_DEVICE is 'tpu': .*; TORCHLIGHT_PORT is 'x\\ny': "):
        read_settings()


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="TORCHLIGHT_PROT"):
        read_settings(prot=1)


def row_of(name: str, field: FieldInfo) -> str:
    default = "unset" if field.default is None else field.default
    default = default.resolve().relative_to(ROOT) if isinstance(default, Path) else default
    return f"| `TORCHLIGHT_{name.upper()}` | `{default}` | {field.description} |"


def test_the_settings_page_lists_each_setting_once_with_its_default_and_description() -> None:
    lines = (ROOT / "docs" / "settings.md").read_text().splitlines()
    listed = [line for line in lines if line.startswith("| `TORCHLIGHT_")]
    assert sorted(listed) == sorted(row_of(name, field) for name, field in Settings.model_fields.items())
