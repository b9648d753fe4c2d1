"""Commands, functions and services that turn documents into vectors, and how each of them fails."""

import json
import shlex
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from kintsugi.backfill.choosing import EmbedOptions, embedder_of
from kintsugi.backfill.command import CommandEmbedder
from kintsugi.backfill.embedder import EmbedFailed, EmbedRefused
from kintsugi.backfill.embeddings_api import ApiEmbedder
from kintsugi.backfill.function import FunctionEmbedder
from kintsugi.errors import InvalidArgument
from kintsugi.sdk.upgrade_types import DocumentToEmbed

DOCUMENTS = [
    DocumentToEmbed(1, 1, "ab", '{"a": 3}'),
    DocumentToEmbed("x", 1, "äöü€", ""),
    DocumentToEmbed(3, 1, "", "{}"),
]
TEXTS = DOCUMENTS[:2]
ANSWERS = [[2.0, 1.0], [4.0, 0.0], [0.0, 0.0]]

WELL = """
import json, sys
for line in sys.stdin:
    if line.strip():
        document = json.loads(line)
        print(json.dumps([len(document["text"]), float("a" in document["attributes"])]))
    else:
        sys.stdout.flush()
"""
# As output that stands in a buffer until the end.
UNFLUSHED = "import sys; print(len(sys.stdin.read()))"
ENDING = "import sys; sys.stdin.readline(); print('[1, 2]', flush=True); sys.exit(7)"
NONSENSE = "import sys; sys.stdin.readline(); print('loading the model', flush=True); sys.stdin.read()"


def python(script):
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}"


@pytest.fixture
def command():
    made = []

    def make(script, timeout_s=20.0):
        made.append(CommandEmbedder(python(script), timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_command_answers_batch_after_batch(command):
    """Documents go in as lines, vectors come back as lines, from one process."""
    embedder = command(WELL)
    for batch in (DOCUMENTS, DOCUMENTS[:1], DOCUMENTS[1:] * 300):
        expected = [ANSWERS[DOCUMENTS.index(document)] for document in batch]
        assert embedder.embed(batch).tolist() == expected


def test_a_command_that_ends_fails_the_batch_and_is_started_anew(command):
    """The failure tells the exit code and may be tried again."""
    embedder = command(ENDING)
    for _ in range(2):
        with pytest.raises(EmbedFailed, match="ended with code 7 after 1 of 3 vectors"):
            embedder.embed(DOCUMENTS)


def test_a_command_that_keeps_its_answers_is_told_apart(command):
    """Who does not flush is told to."""
    with pytest.raises(EmbedFailed, match="must flush its output"):
        command(UNFLUSHED, timeout_s=0.3).embed(DOCUMENTS)


def test_a_command_that_says_something_else_is_refused(command):
    """What is no array is shown."""
    with pytest.raises(EmbedRefused, match="answered 'loading the model'"):
        command(NONSENSE).embed(DOCUMENTS)


def test_a_command_that_does_not_exist_fails():
    """The shell's exit code says so."""
    embedder = CommandEmbedder("exec /nonexistent/embedder 2>/dev/null", 20)
    with pytest.raises(EmbedFailed, match="ended with code 127"):
        embedder.embed(DOCUMENTS)
    embedder.close()


def test_a_function_gets_texts():
    """A list goes in, whatever numpy takes for a matrix comes out."""
    embedder = FunctionEmbedder(lambda texts: [[len(text), 1] for text in texts], "m:f")
    assert embedder.embed(TEXTS).tolist() == [[2.0, 1.0], [4.0, 1.0]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.ones(3), "gave 3, must be a vector for each of 2"),
        (np.ones((1, 3)), "gave 1 x 3"),
        ([[1.0, float("nan")], [1.0, 2.0]], "not finite"),
        ([[1.0], [1.0, 2.0]], "no matrix of numbers"),
        ("words", "no matrix of numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(answer, message):
    """Shapes and values are checked before anything is sent."""
    with pytest.raises(EmbedRefused, match=message):
        FunctionEmbedder(lambda _texts: answer, "m:f").embed(TEXTS)


def test_a_function_that_raises_may_be_tried_again():
    """Its error is told with its name."""

    def broken(_texts):
        raise RuntimeError("quota")

    with pytest.raises(EmbedFailed, match="m:f raised RuntimeError: quota"):
        FunctionEmbedder(broken, "m:f").embed(TEXTS)


@pytest.fixture
def service():
    """An embeddings API: answers what the test sets, notes what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((body, self.headers.get("Authorization")))
            status, headers, answer = self.server.answer(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}/v1/embeddings"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def backwards(body):
    """Embeddings in another order than the texts, as the API allows."""
    data = [
        {"index": place, "embedding": [len(text), 1], "object": "embedding"} for place, text in enumerate(body["input"])
    ]
    return 200, {}, json.dumps({"data": data[::-1], "usage": {}}).encode()


def test_a_service_is_asked_as_its_api_says(service):
    """Model, texts and key go out; vectors are put into the order of the texts."""
    service.answer = backwards
    assert ApiEmbedder(service.url, "m-3", "secret", 20).embed(TEXTS).tolist() == [[2.0, 1.0], [4.0, 1.0]]
    body, authorization = service.asked[0]
    assert (body["model"], body["input"], authorization) == ("m-3", ["ab", "äöü€"], "Bearer secret")


@pytest.mark.parametrize(
    ("status", "expected", "delay"), [(429, EmbedFailed, 7.0), (503, EmbedFailed, 7.0), (401, EmbedRefused, None)]
)
def test_a_service_that_refuses_says_whether_to_try_again(service, status, expected, delay):
    """Too many requests and its own failures may pass; the key is in no message."""
    service.answer = lambda _body: (status, {"Retry-After": "7"}, b"no: secret")
    with pytest.raises(expected, match=rf"answered {status}: no: \*\*\*$") as failed:
        ApiEmbedder(service.url, "m", "secret", 20).embed(TEXTS)
    assert failed.value.retry_delay_s == delay


def test_a_redirect_is_not_followed(service):
    """The key goes nowhere but where it was meant for."""
    service.answer = lambda _body: (307, {"Location": service.url + "/elsewhere"}, b"")
    with pytest.raises(EmbedRefused, match="answered 307"):
        ApiEmbedder(service.url, "m", "secret", 20).embed(TEXTS)
    assert len(service.asked) == 1


def test_a_service_that_speaks_otherwise_is_refused(service):
    """Something else listens there."""
    service.answer = lambda _body: (200, {}, b"<html>")
    with pytest.raises(EmbedRefused, match="does not answer as an embeddings API"):
        ApiEmbedder(service.url, "m", "", 20).embed(TEXTS)


def test_a_service_that_is_away_may_come_back(service):
    """Nobody listens there now."""
    url = service.url
    service.server_close()
    with pytest.raises(EmbedFailed, match="cannot be reached"):
        ApiEmbedder(url, "m", "", 20).embed(TEXTS)


@pytest.mark.parametrize(
    ("embed", "kind"),
    [
        ("http://localhost:1/v1/embeddings", ApiEmbedder),
        ("https://example.org/v1/embeddings", ApiEmbedder),
        ("json:dumps", FunctionEmbedder),
        ("os.path:join", FunctionEmbedder),
        ("python embed.py", CommandEmbedder),
        ("./embed --model a:b", CommandEmbedder),
    ],
)
def test_the_word_says_what_it_is(embed, kind):
    """Addresses, functions and commands are told apart by their look."""
    assert isinstance(embedder_of(EmbedOptions(embed, 1.0), "m"), kind)


@pytest.mark.parametrize(
    "options",
    [
        EmbedOptions(" ", 1.0),
        EmbedOptions("no_such_module_there:f", 1.0),
        EmbedOptions("json:no_such_function", 1.0),
        EmbedOptions("json:__doc__", 1.0),
        EmbedOptions("cat", 1.0, api_model="m"),
        EmbedOptions("cat", 1.0, api_key_variable="KEY"),
        EmbedOptions("http://localhost:1", 1.0, api_key_variable="KEY"),
    ],
)
def test_what_cannot_be_meant_is_refused(options):
    """Names that lead nowhere, keys that are not set, options of another kind."""
    with pytest.raises(InvalidArgument):
        embedder_of(options, "m", {})


def test_the_key_comes_from_the_environment(service):
    """Only the name of the variable is on the command line; the model's name is the collection's unless it is given."""
    service.answer = backwards
    options = EmbedOptions(service.url, 20.0, api_key_variable="KEY")
    embedder_of(options, "m", {"KEY": "secret\n"}).embed(TEXTS)
    body, authorization = service.asked[0]
    assert (body["model"], authorization) == ("m", "Bearer secret")
