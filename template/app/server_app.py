"""The rounds: send the adapter out, average what comes back, save."""

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

import flowertune

from .models import learning_rate, lora_config
from .strategy import strategy_of

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; checks, records, checkpoints and resuming are the library's business."""
    if flowertune.is_whole_model_run(context, __file__):
        # Nothing to train (max-steps=0, quantization=0): whole models are averaged as they are.
        flowertune.average_models(grid, context, __file__)
        return

    with flowertune.TrainingRun.start(grid, context, __file__) as run:
        cfg = run.cfg
        strategy = strategy_of(cfg, run.nodes, run.clients_per_round)
        adapter = run.begin(lora_config(cfg), strategy)

        for server_round in run.rounds():
            config = ConfigRecord({"learning-rate": learning_rate(cfg, server_round)})
            messages = strategy.configure_train(server_round, adapter, config, grid)
            result = run.exchange(server_round, messages)
            adapter, metrics = strategy.aggregate_train(server_round, result.replies)
            run.end_round(result, adapter, metrics)

        run.finish(adapter)
