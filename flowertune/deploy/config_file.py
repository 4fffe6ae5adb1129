"""Edit the text of Flower's configuration file (``config.toml``): text in, text out."""

import tomllib
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import tomlkit
from tomlkit.items import InlineTable

from flowertune.base.errors import UserError

CONNECTION = "flowertune"
# What flwr starts a SuperLink for, on this machine.
LOCAL, LOCAL_IN_MEMORY = ":local:", ":local-in-memory:"
Value = str | int | float

_PER_CLIENT = "options.backend.client-resources."


def connection_values(supernodes: int, num_cpus: float, num_gpus: float) -> dict[str, Value]:
    """The keys of ``[superlink.flowertune]``, dotted, with their values.

    ``num_cpus`` and ``num_gpus`` are what one client may use; a share of a GPU is allowed.
    """
    return {
        "address": LOCAL,
        "options.num-supernodes": supernodes,
        f"{_PER_CLIENT}num-cpus": int(num_cpus) if num_cpus == int(num_cpus) else num_cpus,
        f"{_PER_CLIENT}num-gpus": float(num_gpus),
    }


def client_resources(text: str) -> tuple[float | None, float | None]:
    """The num-cpus and num-gpus that ``[superlink.flowertune]`` has now; None where it has none.

    Raises
    ------
    UserError
        The text is no TOML.
    """
    here: Any = _parse(text)
    for key in ("superlink", CONNECTION, "options", "backend", "client-resources"):
        here = here.get(key) if isinstance(here, Mapping) else None
    resources = here if isinstance(here, Mapping) else {}
    cpus, gpus = (resources.get(key) for key in ("num-cpus", "num-gpus"))
    return _number(cpus), _number(gpus)


def address_of(text: str, connection: str) -> str | None:
    """The address of ``[superlink.<connection>]``; None where there is no such connection.

    Raises
    ------
    UserError
        The text is no TOML.
    """
    superlink: Any = _parse(text).get("superlink")
    here = superlink.get(connection) if isinstance(superlink, Mapping) else None
    return str(here.get("address", "")) if isinstance(here, Mapping) else None


def supernodes_of(text: str, connection: str | None) -> tuple[str, int] | None:
    """Return the name of a simulation's connection and how many SuperNodes it has.

    Parameters
    ----------
    connection
        Its name; None for the default one.

    Returns
    -------
    tuple[str, int] | None
        0 SuperNodes where it does not say how many; None where it is no simulation on this machine.

    Raises
    ------
    UserError
        The text is no TOML.
    """
    superlink: Any = _parse(text).get("superlink")
    here: Any = superlink if isinstance(superlink, Mapping) else {}
    name = connection or here.get("default")
    values = here.get(name) if isinstance(name, str) else None
    if not isinstance(values, Mapping):
        return None
    options: Any = values.get("options")
    if values.get("address", LOCAL if options else None) not in (LOCAL, LOCAL_IN_MEMORY):
        return None
    count = options.get("num-supernodes") if isinstance(options, Mapping) else None
    return str(name), count if isinstance(count, int) else 0


def edit(
    text: str,
    values: Mapping[str, Value],
    make_default: bool,
    connection: str = CONNECTION,
    drop: Collection[str] = (),
) -> str:
    """Set the values of ``[superlink.<connection>]``, and the default connection if asked.

    Comments, order, line ends and everything else in the text stay. Values that are right already
    keep their spelling, so a second edit changes nothing.

    Parameters
    ----------
    drop
        Keys of the connection that must not be there.

    Raises
    ------
    UserError
        The text is no TOML, or is written in a form that cannot be edited safely.
    """
    wanted = {f"superlink.{connection}.{key}": value for key, value in values.items()}
    if make_default:
        wanted = {"superlink.default": connection, **wanted}
    expected = _parse(text)
    windows = "\r\n" in text and "\n" not in text.replace("\r\n", "")
    try:
        document = tomlkit.parse(text.replace("\r\n", "\n") if windows else text)
        _put(document, wanted, connection)
        for key in drop:
            document["superlink"][connection].pop(key, None)  # type: ignore
        edited = tomlkit.dumps(document)
        edited = edited.replace("\n", "\r\n") if windows else edited
        for key, value in wanted.items():
            _put_plain(expected, key.split("."), value)
        for key in drop:
            expected["superlink"][connection].pop(key, None)
        good = tomllib.loads(edited) == expected
    except (TypeError, ValueError, KeyError, AttributeError):
        good, edited = False, text
    if not good:
        lines = "; ".join(f"{key} = {_toml(value)}" for key, value in wanted.items())
        raise UserError(
            "it is written in a form that cannot be edited without losing something; set these "
            f"values by hand: {lines}"
        )
    return edited


def remove(text: str, connection: str) -> str:
    """Remove ``[superlink.<connection>]``; everything else in the text stays.

    Raises
    ------
    UserError
        The text is no TOML, or is written in a form that cannot be edited safely.
    """
    expected = _parse(text)
    windows = "\r\n" in text and "\n" not in text.replace("\r\n", "")
    try:
        document = tomlkit.parse(text.replace("\r\n", "\n") if windows else text)
        for tables in (document, expected):
            tables["superlink"].pop(connection, None)  # type: ignore[union-attr]
            if not tables["superlink"]:
                tables.pop("superlink")
        edited = tomlkit.dumps(document)
        edited = edited.replace("\n", "\r\n") if windows else edited
        good = tomllib.loads(edited) == expected
    except (TypeError, ValueError, KeyError, AttributeError):
        good, edited = False, text
    if not good:
        raise UserError(f"remove [superlink.{connection}] by hand: it cannot be edited safely")
    return edited


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"it is not valid TOML ({error})") from error


def _put(document: tomlkit.TOMLDocument, wanted: Mapping[str, Value], connection: str) -> None:
    new = connection not in document.get("superlink", {})
    if "superlink" not in document:
        document["superlink"] = tomlkit.table()
    superlink: Any = document["superlink"]
    if new:
        superlink[connection] = (
            tomlkit.inline_table() if isinstance(superlink, InlineTable) else tomlkit.table()
        )
    for key, value in wanted.items():
        _set(superlink, key.split(".")[1:], value)


def _set(table: MutableMapping[str, Any], keys: list[str], value: Value) -> None:
    first, *rest = keys
    if rest and first in table:
        _set(table[first], rest, value)
    elif rest and isinstance(table, InlineTable):
        table[first] = tomlkit.inline_table()
        _set(table[first], rest, value)
    elif rest:
        # dotted keys, the form the challenge's instructions use
        table.append(tomlkit.key(keys), value)  # type: ignore[attr-defined]
    elif table.get(first) != value:
        table[first] = value


def _put_plain(table: dict[str, Any], keys: list[str], value: Value) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    table[keys[-1]] = value


def _number(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return value if good else None  # type: ignore[return-value]


def _toml(value: Value) -> str:
    return tomlkit.item(value).as_string()
