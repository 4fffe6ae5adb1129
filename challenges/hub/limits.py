"""How much, how many and how long: the hub's limits in one place."""

MAX_QUESTION = 16 * 1024
MAX_UPLOAD = 12 * 1024 * 1024
PUBLISH_PATH = "/v1/hub/apps/publish"

HEADER_SECONDS = 10.0
BODY_SECONDS = 15.0
UPLOAD_SECONDS = 60.0
ANSWER_SECONDS = 60.0
RENDER_SECONDS = 60.0
SHUTDOWN_SECONDS = 10

CONNECTIONS = 1000
REQUESTS = 500
RENDER_CACHE_BYTES = 256 * 1024 * 1024

RELEASES_SECONDS = 5.0
FETCH_SECONDS = 300.0


def max_body(path: str) -> int:
    """How many bytes a request to a path may have."""
    return MAX_UPLOAD if path == PUBLISH_PATH else MAX_QUESTION


def body_seconds(path: str) -> float:
    """How long the body of a request to a path may take to arrive."""
    return UPLOAD_SECONDS if path == PUBLISH_PATH else BODY_SECONDS
