"""Make the model, as large as card and disk allow, and write the bench down."""

from dataclasses import replace
from pathlib import Path

from tests.gpu.bench import MISTRAL, Bench, fitting
from tests.gpu.card import free_disk, this_card
from tests.gpu.weights import write

# Bytes of a layer and of the embeddings of Mistral-7B in 16 bits, in GB; some for the rest.
LAYER_GB, EMBEDDINGS_GB, ROOM_GB = 0.44, 0.54, 2.0


def prepare(folder: Path, device: str, layers: int | None = None) -> tuple[str, str, Path]:
    """Write a model into ``folder``; returns what the table says of card and model, and the bench.

    Parameters
    ----------
    layers : int, optional
        How many layers it has; if not given, as many as can be trained in 4 bit here and as the
        disk has room for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = this_card(device)
    bench = Bench(folder, device, card.free, layers or 0)
    published = bench.config["num_hidden_layers"]
    whole, why = layers or published, "all layers" if layers is None else "as asked for"
    if not bench.rehearsal and layers is None:
        on_disk = int((free_disk(folder) - ROOM_GB - EMBEDDINGS_GB) / LAYER_GB)
        on_card = fitting(bench, 4, card.free, published, "bfloat16")
        whole = max(2, min(published, on_disk, on_card))
        if whole < published:
            why = "for the disk" if on_disk < on_card else "for the card's free memory"
    bench = replace(bench, whole=whole)
    if not (bench.model / "model.safetensors.index.json").is_file():
        write(bench.model, {**bench.config, "num_hidden_layers": whole}, device)
    bench.save(folder / "bench.json")
    shapes = "tiny" if bench.rehearsal else f"the shapes of {MISTRAL}"
    model = f"{shapes}, random weights, {whole} of {published} layers ({why})"
    return card.line, model, folder / "bench.json"
