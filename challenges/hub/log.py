"""The hub's log: JSON, one line a record, or words for whoever reads it in a terminal."""

import json
import logging
import sys
import time
from typing import Literal

Form = Literal["auto", "text", "json"]


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "hub", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class Words(logging.Formatter):
    """Log records as a person reads them: what was asked for, and what the hub has to say."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; more only where there is a traceback."""
        seen = getattr(record, "hub", None)
        if seen is None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: {text}"
            return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
        app = " ".join(str(seen[key]) for key in ("app_id", "version") if key in seen)
        line = f"{record.getMessage()} {app}".rstrip()
        # Whatever a client sent, a terminal gets printable characters.
        line = line.encode("ascii", "backslashreplace").decode()
        line = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in line)
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{at} {seen['status']} {line} ({seen['ms'] / 1000:.1f} s)"


def set_up(form: Form) -> logging.Logger:
    """Let all logging go to stdout; `auto` is words in a terminal, else JSON. Returns the hub's."""
    words = form == "text" or (form == "auto" and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Words() if words else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # The server says what the hub says, in the server's words.
    logging.getLogger("uvicorn").setLevel(logging.WARNING if words else logging.INFO)
    return logging.getLogger("challenges.hub")
