"""`python -m grafana.generate`: writes dashboards/*.json anew. Committed files must be equal to what it writes.

Must not know: what is on any dashboard.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import mesh
from .shapes import Json

FOLDER = Path(__file__).parent / "dashboards"


def files() -> dict[Path, str]:
    """{where a dashboard belongs: its text}."""
    return {FOLDER / f"{board['uid']}.json": _text(board) for board in (mesh.dashboard(),)}


def _text(board: Json) -> str:
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(path)
