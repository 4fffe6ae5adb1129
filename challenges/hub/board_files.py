"""Serve a board, the folder that `python -m evaluation.leaderboard -o` wrote, below /board/."""

from pathlib import PurePosixPath

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PATH = "/board"
MARK = "board.json"  # a folder without it is no board
_KINDS = {".html", ".css", ".js", ".json", ".csv"}
# The pages have the same policy; here it holds for whatever lies in the folder.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class BoardFiles(StaticFiles):
    """Files of a board: those of the kinds that it has, none through a link or a hidden folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or raise 404."""
        name = PurePosixPath(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or (name.suffix and name.suffix not in _KINDS):
            raise HTTPException(404, "There is no such page.")
        response = await super().get_response(path, scope)
        response.headers["content-security-policy"] = _POLICY
        response.headers["cache-control"] = "no-cache"  # a board is made anew now and then
        return response
