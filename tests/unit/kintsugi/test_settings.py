"""Settings come from flags, variables and defaults, and wrong ones are named."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.settings import CoordinatorSettings
from kintsugi.settings import ProcessSettings, SettingError, describe, load, setting
from shard.settings import ShardSettings


@dataclass(frozen=True, slots=True)
class Example:
    """An example."""

    data: Path = setting("a folder")
    workers: int = setting("how many", 2, minimum=1, maximum=8)
    ratio: float = setting("which part", 0.5, minimum=0.0)
    bytes: int = setting("how many bytes", 2**40, minimum=2**20)
    sync: bool = setting("whether to sync", default=True)
    mode: str = setting("which one", "fast", choices=("fast", "safe"))
    extra: Path | None = setting("maybe a folder", None)


def test_flag_wins_over_variable_and_variable_over_default():
    """The most specific source decides."""
    loaded = load(Example, ["--data", "x", "--workers=3"], {"KINTSUGI_WORKERS": "4", "KINTSUGI_RATIO": "0.25"})
    assert loaded == Example(data=Path("x"), workers=3, ratio=0.25)
    assert loaded.extra is None


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("0", False), ("No", False), ("on", True)])
def test_boolean_takes_the_usual_words(value, expected):
    """Flags and variables spell booleans alike."""
    assert load(Example, ["--data", "x", "--sync", value], {}).sync is expected
    assert load(Example, ["--data", "x"], {"KINTSUGI_SYNC": value}).sync is expected


def test_boolean_flag_alone_means_true():
    """`--sync` needs no value."""
    assert load(Example, ["--sync", "--data", "x"], {"KINTSUGI_SYNC": "false"}).sync is True


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "--data is missing, give it or set KINTSUGI_DATA"),
        (["--data", "x", "--workers", "9"], {}, "--workers is 9, must be 1 to 8"),
        (["--data", "x", "--workers", "two"], {}, "--workers is 'two', must be a whole number"),
        (["--data", "x", "--bytes", "1"], {}, "--bytes is 1, must be at least 1048576"),
        (["--data", "x", "--ratio=-1"], {}, "--ratio is -1, must be at least 0"),
        (["--data", "x", "--ratio", "nan"], {}, "--ratio is nan, must be at least 0"),
        (["--data", "x"], {"KINTSUGI_WORKERS": "0"}, "KINTSUGI_WORKERS is 0, must be 1 to 8"),
        (["--data", "x"], {"KINTSUGI_SYNC": "maybe"}, "KINTSUGI_SYNC is 'maybe', must be true or false"),
        (["--data", "x", "--mode", "odd"], {}, "--mode is odd, must be one of fast, safe"),
        (["--data", "x", "--nonsense"], {}, "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_setting_is_refused_naming_flag_value_and_bound(arguments, environment, message):
    """An operator can fix the line from the message alone."""
    with pytest.raises(SettingError) as caught:
        load(Example, arguments, environment)
    assert str(caught.value) == message


def test_help_shows_every_setting(capsys):
    """--help gives meaning, bound, default and variable."""
    with pytest.raises(SystemExit):
        load(Example, ["--help"], {})
    shown = " ".join(capsys.readouterr().out.split())
    for item in describe(Example):
        assert item.flag in shown
        assert item.variable in shown
        assert item.bounds.help in shown
    assert "must be 1 to 8; default: 2" in shown


@pytest.mark.parametrize("settings_type", [CoordinatorSettings, ShardSettings])
def test_a_variable_means_the_same_in_every_process(settings_type):
    """One environment serves all processes of a machine: what two of them read has one default, bound and meaning."""
    other = ShardSettings if settings_type is CoordinatorSettings else CoordinatorSettings
    others = {item.variable: item for item in describe(other)}
    for item in describe(settings_type):
        assert others.get(item.variable, item) == item


def test_process_settings_have_the_agreed_flags():
    """`kintsugi up` starts both kinds of process with these."""
    flags = {item.flag for item in describe(ProcessSettings)}
    assert {"--data", "--listen", "--redis", "--namespace", "--advertise"} <= flags
