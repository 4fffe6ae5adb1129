"""How much, how many and how long: the hub's limits in one place."""

MAX_QUESTION = 16 * 1024
MAX_UPLOAD = 12 * 1024 * 1024
PUBLISH_PATH = "/v1/hub/apps/publish"
MAX_BUNDLE = 512 * 1024 * 1024
BUNDLES_PATH = "/v1/bundles"

HEADER_SECONDS = 10.0
BODY_SECONDS = 15.0
UPLOAD_SECONDS = 60.0
BUNDLE_SECONDS = 900.0
VERIFY_SECONDS = 600.0
ANSWER_SECONDS = 60.0
RENDER_SECONDS = 60.0
SHUTDOWN_SECONDS = 10

CONNECTIONS = 1000
REQUESTS = 500
BUNDLES_AT_ONCE = 4
VERIFY_BYTES = 4 * 1024 * 1024 * 1024
RENDER_CACHE_BYTES = 256 * 1024 * 1024

RELEASES_SECONDS = 5.0
FETCH_SECONDS = 300.0


def max_body(path: str) -> int:
    """How many bytes a request to a path may have."""
    return {PUBLISH_PATH: MAX_UPLOAD, BUNDLES_PATH: MAX_BUNDLE}.get(path, MAX_QUESTION)


def body_seconds(path: str) -> float:
    """How long the body of a request to a path may take to arrive."""
    found = {PUBLISH_PATH: UPLOAD_SECONDS, BUNDLES_PATH: BUNDLE_SECONDS}
    return found.get(path, BODY_SECONDS)
