"""The demo as a film: a cluster of real processes takes in documents, answers questions, loses a server, restarts, and
moves to another embedding model and back.

Ends with the list of its checks, each [ok] or [FAILED]. Leaves no process and no file behind, also after a failure or
Ctrl-C. Uses the public SDK only. This is the script; each scene is a file of its own.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from kintsugi.demo import scene_import, scene_kill, scene_questions, scene_restart, scene_rollback, scene_upgrade
from kintsugi.demo.checks import Checks
from kintsugi.demo.corpus import CorpusUnavailable
from kintsugi.demo.embed import EmbeddingUnavailable
from kintsugi.demo.material import QUESTIONS
from kintsugi.demo.stage import Cast, Stage, folder_at, running, since, terminable
from kintsugi.errors import KintsugiError

SCENES: tuple[tuple[str, str, Callable[[Stage], None]], ...] = (
    ("import", "The documents are imported", scene_import.play),
    ("questions", "Questions are answered", scene_questions.play),
    ("kill", "A shard server is killed under traffic", scene_kill.play),
    ("restart", "The whole cluster is restarted", scene_restart.play),
    ("verify", "Every document is compared", scene_restart.verify),
    ("upgrade", "The embedding model is upgraded under traffic", scene_upgrade.play),
    ("rollback", "The upgrade is rolled back", scene_rollback.play),
)


def run(
    data: Path | None = None,
    questions: Sequence[str] = QUESTIONS,
    console: Console | None = None,
    cast: Cast | None = None,
    checks: Checks | None = None,
) -> int:
    """Plays the demo in `data`, by default a temporary folder. Returns 0 when every check held, 1 otherwise, 130 when
    it was interrupted. `checks` may be given to read them afterwards."""
    console, cast, checks = console or Console(), cast or Cast(), checks or Checks()
    started = time.monotonic()
    try:
        with terminable(), folder_at(data) as folder:
            material = cast.material(console, questions)
            _play(Stage(console, checks, cast, cast.cluster(folder, cast.replicas), material))
    except (KintsugiError, CorpusUnavailable, EmbeddingUnavailable, OSError) as error:
        checks.end_early(str(error))
    except KeyboardInterrupt:
        console.print("\ninterrupted; the cluster is stopped")
        return 130
    checks.show(console)
    console.print(f"\n{'all checks held' if checks.all_held else 'the demo FAILED'} in {since(started)}")
    return 0 if checks.all_held else 1


def _play(stage: Stage) -> None:
    with running(stage):
        for name, title, play in SCENES:
            stage.console.rule(f"[bold]{title}", align="left")
            stage.cast.before_scene(name, stage)
            play(stage)
