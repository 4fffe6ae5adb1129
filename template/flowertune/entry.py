"""What Flower loads first: it hands over to server_app and client_app, or to the aggregation.

A run that only averages whole models trains nothing, and in the Deployment Engine every message
starts a process: what trains (torch, transformers, peft) is imported when there is something to
train.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowertune.aggregation import messages
from flowertune.aggregation.choice import averages_models
from flowertune.aggregation.client import answer_bucket, answer_offer
from flowertune.profiling.messages import profiled
from flowertune.run.nodes import answer_roll_call

server = ServerApp()
quick = ClientApp(mods=[profiled])
quick.query("roll_call")(answer_roll_call)
quick.query("offer")(answer_offer)
quick.query("bucket")(answer_bucket)
QUICK = ("query.roll_call", messages.OFFER, messages.BUCKET)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Average whole models where the settings ask for it, else run server_app."""
    if averages_models(context.run_config):
        from flowertune.aggregation.whole import average_models

        average_models(grid, context)
    else:
        from flowertune.server_app import app

        app(grid=grid, context=context)


class LateClientApp(ClientApp):
    """Answers what needs no model itself, and leaves the rest to client_app."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        if message.metadata.message_type in QUICK:
            return quick(message, context)
        from flowertune.client_app import app

        return app(message, context)


client = LateClientApp()
