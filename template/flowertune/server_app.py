"""What the server does: rounds of sending the adapter out, and averaging what comes back."""

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from flowertune.models import initial_adapter, learning_rate
from flowertune.run.failures import told_last
from flowertune.run.session import open_session
from flowertune.strategy import LoraFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds. Checkpoints, the ledger and the log are the session's business."""
    with told_last():
        session = open_session(grid, context)
        cfg = session.cfg
        tensors, session.peft_config = initial_adapter(cfg)
        adapter = ArrayRecord(tensors)
        strategy = LoraFedAvg(session.roll.nodes, session.clients_per_round, cfg["seed"])

        for server_round in range(1, cfg["num-server-rounds"] + 1):
            config = ConfigRecord({"learning-rate": learning_rate(cfg, server_round)})
            messages = strategy.configure_train(server_round, adapter, config, grid)
            replies = session.exchange(grid, server_round, messages)
            adapter, metrics = strategy.aggregate_train(server_round, replies)
            session.end_round(server_round, adapter, metrics)

        session.finish()
