"""A resumed run's settings on their way to the clients.

Flower hands every client the settings that `flwr run` was given. A run that goes on has others:
those it was started with. They travel with every message, since a SuperNode that was restarted
remembers nothing, and the ledger counts them as part of each.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid

from flowertune.comms.ledger import Ledger, record_bytes

RECORD = "run-settings"


def carry_settings(grid: Grid, changes: Mapping[str, Any], ledger: Ledger) -> None:
    """Let every message that goes out through ``grid``, whoever sends it, carry settings.

    Flower has no hook for that, so two methods of this one grid are replaced. ``ledger`` learns how
    much they add to a message.
    """
    ledger.carried = record_bytes(RECORD, ConfigRecord(dict(changes)))

    def carrying(send: Any) -> Any:
        def method(messages: Iterable[Message], *args: Any, **kwargs: Any) -> Any:
            messages = list(messages)
            for message in messages:
                message.content[RECORD] = ConfigRecord(dict(changes))
            return send(messages, *args, **kwargs)

        return method

    for name in ("push_messages", "send_and_receive"):
        setattr(grid, name, carrying(getattr(grid, name)))


def with_run_settings(message: Message, context: Context, answer: ClientAppCallable) -> Message:
    """Answer a message under the settings that came with it, where some did.

    A Flower mod: ``ClientApp(mods=[with_run_settings])``.
    """
    if RECORD not in message.content.config_records:
        return answer(message, context)
    changes: dict[str, Any] = dict(message.content.config_records[RECORD])
    del message.content[RECORD]
    given = context.run_config
    context.run_config = {**given, **changes}
    try:
        return answer(message, context)
    finally:
        context.run_config = given
