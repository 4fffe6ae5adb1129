"""The command: `python -m challenges.hub serve`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from challenges.hub.repository import HubError

TOKEN_VARIABLE = "FLOWERTUNE_HUB_TOKEN"
TEMPLATE_VARIABLE = "FLOWERTUNE_HUB_TEMPLATE"
CHECKOUT = Path(__file__).resolve().parent.parent.parent
_DESCRIPTION = """\
Serve the template's challenges to `flwr new`, from every release (tag) of the template; of a
template without a release, its newest commit.

A participant then types
  FLWR_SUPERGRID_API_URL=http://127.0.0.1:8700/v1 flwr new @flowertune/finance
and gets the app that `copier copy` would have made. The page at the address itself lists the
challenges, their rules and the commands; /health answers whether the hub is well, and if not, why.
"""
_EPILOG = """\
examples:
  python -m challenges.hub serve
      this checkout's releases, on this machine only
  python -m challenges.hub serve --template https://example.org/template.git
      a repository's releases; new ones are fetched every five minutes
  python -m challenges.hub serve --host 0.0.0.0 --public-url https://example.org/template.git \\
      --tls-cert hub.pem --tls-key hub.key
      for others; their `copier update` goes to the public address
  python -m challenges.hub serve --site site/
      a board, too: it is then at /board/
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m challenges.hub")
    commands = made.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="run the hub",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    serve.add_argument(
        "--template",
        metavar="PATH_OR_URL",
        help="the template's git repository (default: what the environment variable "
        f"{TEMPLATE_VARIABLE} says, else the checkout this command runs from); give an address "
        "with a password by the variable, for everybody on a machine sees its command lines",
    )
    serve.add_argument(
        "--public-url",
        metavar="URL",
        help="the template's address for participants, written into the apps for `copier update` "
        "(default: what --template says)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8700, help="(default: %(default)s)")
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS: certificate chain"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="serve HTTPS: private key")
    serve.add_argument(
        "--proxy",
        metavar="ADDRESSES",
        help="proxies, with commas between, whose X-Forwarded-For and X-Forwarded-Proto are "
        "believed (default: none)",
    )
    serve.add_argument(
        "--rate",
        type=float,
        default=600,
        metavar="N",
        help="requests a minute from one address, 0 for no limit (default: %(default)g)",
    )
    serve.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes that render (default: 2)"
    )
    serve.add_argument(
        "--log",
        choices=["auto", "text", "json"],
        default="auto",
        help="form of the log: words, or JSON, one line a record; auto is words in a terminal, "
        "else JSON (default: auto)",
    )
    serve.add_argument(
        "--uploads",
        type=Path,
        metavar="DIR",
        help="take what `flwr app publish` sends, and keep it there; uploaders show the token in "
        f"the environment variable {TOKEN_VARIABLE} (default: no uploads)",
    )
    serve.add_argument(
        "--site",
        type=Path,
        metavar="DIR",
        help="serve the board that `python -m evaluation.leaderboard -o DIR` wrote, below /board/",
    )
    serve.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="take bundles, verify each, and keep the VALID ones there (default: no bundles)",
    )
    serve.add_argument(
        "--bundle-keys",
        type=Path,
        metavar="FILE",
        help="whose bundles are taken: what `python -m challenges.hub key` wrote",
    )
    serve.add_argument(
        "--bundles-a-day",
        type=int,
        default=3,
        metavar="N",
        help="bundles of a key that are verified in a day (default: %(default)s)",
    )
    key = commands.add_parser("key", help="make a key for somebody who may upload bundles")
    key.add_argument("name", help="whose: lower-case letters, digits and hyphens")
    key.add_argument(
        "--bundle-keys", type=Path, required=True, metavar="FILE", help="where its hash is kept"
    )
    return made


def problems(arguments: argparse.Namespace) -> list[str]:
    """What is wrong with the options, one sentence each."""
    sentences = []
    for name in ("template", "public_url"):
        address = getattr(arguments, name) or ""
        if "://" in address and ("?" in address or "#" in address):
            option = f"--{name.replace('_', '-')}"
            sentences.append(f"{option} has a ? or a #; git takes no address with one.")
    if not 0 < arguments.port < 65536:
        sentences.append(f"--port is {arguments.port}; use 1 to 65535.")
    if arguments.rate < 0:
        sentences.append(f"--rate is {arguments.rate:g}; use 0 or more.")
    if arguments.workers < 1:
        sentences.append(f"--workers is {arguments.workers}; use at least 1.")
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        sentences.append("--tls-cert and --tls-key go together.")
    for name in ("tls_cert", "tls_key"):
        path = getattr(arguments, name)
        if path is not None and not path.is_file():
            sentences.append(f"--{name.replace('_', '-')} is {path}; there is no such file.")
    if arguments.uploads is not None and not arguments.token:
        sentences.append(f"--uploads needs a token in the environment variable {TOKEN_VARIABLE}.")
    if arguments.site is not None and not (arguments.site / "board.json").is_file():
        sentences.append(
            f"--site is {arguments.site}; there is no board in it: make one with "
            "`python -m evaluation.leaderboard BUNDLES -o DIR`."
        )
    if (arguments.bundles is None) != (arguments.bundle_keys is None):
        sentences.append("--bundles and --bundle-keys go together.")
    if arguments.bundles_a_day < 1:
        sentences.append(f"--bundles-a-day is {arguments.bundles_a_day}; use at least 1.")
    return sentences


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.command == "key":
        return _key(arguments)
    # Taken out of the environment, so that no process that the hub starts has them there.
    template, token = (os.environ.pop(name, None) for name in (TEMPLATE_VARIABLE, TOKEN_VARIABLE))
    arguments.template = arguments.template or template or str(CHECKOUT)
    arguments.token = token
    if sentences := problems(arguments):
        print("\n".join(f"error: {problem}" for problem in sentences), file=sys.stderr)
        return 2
    try:
        # Late: without the extra `hub` the sentence below is all there is to say.
        from challenges.hub.server import Settings, serve
    except ImportError as error:
        print(
            f"error: {error.name} is not installed; the hub needs the extra packages of "
            "`pip install 'flowertune[hub]'`.",
            file=sys.stderr,
        )
        return 1
    settings = Settings(
        template=arguments.template,
        host=arguments.host,
        port=arguments.port,
        public_url=arguments.public_url,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        proxy=arguments.proxy,
        rate=arguments.rate,
        workers=arguments.workers,
        uploads=arguments.uploads,
        token=token,
        site=arguments.site and arguments.site.absolute(),
        bundles=arguments.bundles and arguments.bundles.absolute(),
        bundle_keys=arguments.bundle_keys and arguments.bundle_keys.absolute(),
        bundles_a_day=arguments.bundles_a_day,
        log_form=arguments.log,
    )
    try:
        serve(settings)
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _key(arguments: argparse.Namespace) -> int:
    # Late: the file's form is no business of a hub that takes no bundles.
    from challenges.hub.bundle_keys import Keys

    try:
        print(Keys(arguments.bundle_keys).add(arguments.name))
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"hand it to {arguments.name}; only its hash is kept", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
