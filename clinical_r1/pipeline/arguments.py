"""What each command takes, on the standard library alone: ./reproduce.sh checks its arguments before anything is installed."""

from pathlib import Path

from clinical_r1.files import ROOT

AGENT_SETTINGS, AGENT_SEEDS = (
    ("main", "closure", "cured", "long"),
    5,
)  # of `agent.arms.EXPERIMENTS`, which needs numpy


def _argument(*flags, **keywords):
    return flags, keywords


_PROFILE = {"default": "cpu", "help": "smoke, cpu (default), laptop, colab, paper or published"}
PROFILE_FIRST = _argument("profile", nargs="?", **_PROFILE)
PROFILE_OPTION = _argument("--profile", **_PROFILE)
WITH = _argument(
    "--with", dest="own", type=Path, metavar="FILE", help="your own arms, rewards, questions, model"
)
EVERYWHERE = (
    _argument(
        "--out", type=Path, default=ROOT, help="folder for runs/ and figures/ (default: the repository)"
    ),
    _argument(
        "--dry-run", action="store_true", help="check the arguments, say what would be done, write nothing"
    ),
)
RUN = (
    PROFILE_FIRST,
    _argument(
        "--only", action="append", metavar="NN", help="only this notebook, such as 03; may be repeated"
    ),
    _argument("--seeds", type=int, metavar="N", help="train with seeds 0..N-1; more seeds extend a run"),
    _argument(
        "--fresh", action="store_true", help="move runs/<profile> to runs/<profile>.old-<n> and start anew"
    ),
    _argument(
        "--publish", action="store_true", help="copy a finished run into notebooks/ and figures/published"
    ),
    WITH,
)
EXPLAIN = (
    _argument("cell", help="such as table1.medqa.crpo.accuracy or table1.clinic.crpo.accuracy; or: ledger"),
    PROFILE_OPTION,
    WITH,
)
RESCORE = (
    PROFILE_FIRST,
    _argument("--name", default="today", help="folder under runs/<profile>/rescored (default: today)"),
    _argument("--seeds", type=int, metavar="N", help="seeds 0..N-1 (default: those of the run)"),
    WITH,
)
ABLATIONS = (
    _argument("--seeds", type=int, default=3, metavar="N", help="seeds 0..N-1 (default 3)"),
    _argument("--full", action="store_true", help="seeds and questions of the published laboratory"),
    _argument("--only", action="append", metavar="ARM", help="only this arm; may be repeated"),
    _argument("--summary-only", action="store_true", help="summarise what is on disk; train nothing"),
    _argument("--publish", action="store_true", help="copy the summary into the package"),
)
AGENT = (
    _argument("--seeds", type=int, metavar="N", help="of the main setting: seeds 0..N-1 (default: all five)"),
    _argument("--only", action="append", metavar="SETTING", help="only this setting; may be repeated"),
    _argument("--summary-only", action="store_true", help="summarise what is on disk; train nothing"),
    _argument("--publish", action="store_true", help="copy the summary into the package"),
    _argument("--start-only", action="store_true", help="measure only what needs no training"),
    _argument("--tune-only", action="store_true", help="only try the learning rates, on validation patients"),
)
TRACES = (
    PROFILE_FIRST,
    _argument(
        "--teacher", required=True, metavar="MODEL", help="Hub id or folder; with --server its name there"
    ),
    _argument(
        "--server", metavar="URL", help="an OpenAI-compatible server, such as http://127.0.0.1:8000/v1"
    ),
    _argument("--key-variable", metavar="NAME", help="environment variable that holds the server's key"),
    _argument("--tries", type=int, default=4, metavar="K", help="tries a question, at most (default 4)"),
    _argument("--temperature", type=float, default=0.8, help="of every try (default 0.8)"),
    _argument("--limit", type=int, metavar="N", help="only the first N questions of the SFT half"),
    _argument("--to", type=Path, metavar="FILE", help="default: runs/<profile>/traces/<model>.jsonl"),
    WITH,
)
EXPORT = (
    PROFILE_OPTION,
    _argument("--method", required=True, help="a trained arm, such as crpo, or cold_start"),
    _argument("--seed", type=int, default=0),
    _argument("--to", required=True, metavar="DIR", help="a new or empty folder"),
    _argument("--push", metavar="ORG/NAME", help="upload to the Hub as well, private"),
    _argument("--public", action="store_true", help="with --push: publish"),
    WITH,
)
