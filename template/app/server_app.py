"""What the server does: rounds of sending the adapter out, and averaging what comes back."""

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from flowertune.run.failures import told_last
from flowertune.run.setup import open_session
from template.app.models import initial_adapter, learning_rate
from template.app.strategy import LoraFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds. Checkpoints, the ledger and the log are the session's business."""
    with told_last(), open_session(grid, context) as session:
        cfg = session.cfg
        strategy = LoraFedAvg(session.roll.nodes, session.clients_per_round, cfg["seed"])
        adapter = session.begin(*initial_adapter(cfg), strategy)

        for server_round in session.rounds(adapter):
            config = ConfigRecord({"learning-rate": learning_rate(cfg, server_round)})
            messages = strategy.configure_train(server_round, adapter, config, grid)
            replies = session.exchange(server_round, messages)
            adapter, metrics = strategy.aggregate_train(server_round, replies)
            session.end_round(server_round, adapter, metrics)

        session.finish(adapter)
