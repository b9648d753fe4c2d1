"""The query of a search is read from wherever people have it."""

import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from kintsugi.cli.query import of_file, of_text, parse_named, parse_vector
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.sdk.types import Collection, Model

COLLECTION = Collection(
    name="books", uid="u", shards=1, replicas=1, metric="cosine", models=(Model("m", 3, query_prefix="query: "),),
    stored="f32", serving_model="m", created_at=datetime.now(UTC),
)  # fmt: skip


def python(program):
    return f"{sys.executable} -c '{program}'"


@pytest.mark.parametrize("text", ["1,2.5,-3", "[1, 2.5, -3]", "1 2.5 -3"])
def test_vector_is_read_as_people_type_it(text):
    """Brackets and blanks do not matter."""
    assert parse_vector(text).tolist() == [1, 2.5, -3]


def test_vector_of_words_is_refused():
    """A typing error names what was typed."""
    with pytest.raises(InvalidArgument, match="^vector is '1,two', must be numbers"):
        parse_vector("1,two")


def test_a_row_of_any_file_is_a_query(tmp_path):
    """Also the only vector of a .npy, and a row behind the first thousand."""
    np.save(tmp_path / "one.npy", np.array([1.0, 2, 3]))
    np.save(tmp_path / "many.npy", np.arange(4500).reshape(1500, 3))
    (tmp_path / "v.jsonl").write_text('{"id": 1, "vector": [1, 2, 3]}\nnonsense')
    assert of_file(tmp_path / "one.npy", 0, COLLECTION, "").tolist() == [1, 2, 3]
    assert of_file(tmp_path / "many.npy", 1400, COLLECTION, "m").tolist() == [4200, 4201, 4202]
    assert of_file(tmp_path / "v.jsonl", 0, COLLECTION, "").tolist() == [1, 2, 3]
    with pytest.raises(InvalidArgument, match="row is 2, must be 0 to 1"):
        of_file(tmp_path / "v.jsonl", 2, COLLECTION, "")
    with pytest.raises(InvalidArgument, match="v.jsonl line 2: is malformed"):
        of_file(tmp_path / "v.jsonl", 1, COLLECTION, "")


def test_a_command_embeds_text_behind_the_models_prefix():
    """The command reads what the model wants to read."""
    program = 'import sys; text = sys.stdin.read(); print([len(text), int(text.startswith("query: ")), 0])'
    assert of_text(python(program), "whales", COLLECTION, "").tolist() == [len("query: whales"), 1, 0]
    assert of_text(python("print([[1, 2, 3]])"), "x", COLLECTION, "").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (python("raise SystemExit(3)"), "exited with status 3"),
        (python('import sys; sys.exit("no model")'), "exited with status 1: no model"),
        (python('print("hello")'), "must print a JSON list of numbers, it printed 'hello'"),
        (python("print([[1], [2]])"), "must print one vector"),
        (python("print([])"), "must print one vector"),
    ],
)
def test_what_an_embed_command_does_wrong_is_told(command, message):
    """The user wrote the command, so the message is about it."""
    with pytest.raises(FailedPrecondition, match=message):
        of_text(command, "x", COLLECTION, "")


@pytest.mark.parametrize("command", ["/does/not/exist", "'", ""])
def test_a_command_that_does_not_run_is_named(command):
    """A path that is wrong is found without a traceback."""
    with pytest.raises(InvalidArgument, match="^embed is"):
        of_text(command, "x", COLLECTION, "")


def test_a_vector_with_its_model():
    """A name, an equals sign, numbers; anything else is refused."""
    name, vector = parse_named("old = 1, 2.5")
    assert (name, vector.tolist()) == ("old", [1.0, 2.5])
    for text in ("1, 2", "=1, 2"):
        with pytest.raises(InvalidArgument, match="must be MODEL=NUMBERS"):
            parse_named(text)
