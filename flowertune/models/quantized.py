"""Base models that come quantized: what they are, and whether they can be used as asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowertune.models.source import Source

BITSANDBYTES = "bitsandbytes"


@dataclass(frozen=True)
class Quantization:
    """How weights are quantized.

    Attributes
    ----------
    method
        The library or the format: "bitsandbytes", "gptq", "awq", "fp8" ...
    bits
        Of a weight; None where the configuration does not say.
    kind
        What bitsandbytes calls its type: "fp4", "nf4" or "int8"; else the method's name.
    double
        Whether the scales are quantized, too.
    from_model
        Whether the model comes quantized; else it is quantized while it is loaded.
    """

    method: str
    bits: int | None
    kind: str
    double: bool = False
    from_model: bool = False

    def __str__(self) -> str:
        bits = f"{self.bits} bits" if self.bits else "fewer bits"
        kind = "" if self.kind == self.method else f" {self.kind}"
        double = ", double quantization" if self.double else ""
        return f"{bits} ({self.method}{kind}{double})"

    def record(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {
            "method": self.method,
            "bits": self.bits,
            "type": self.kind,
            "double": self.double,
            "from-model": self.from_model,
        }


def own_quantization(config: Any) -> Quantization | None:
    """Return how a model comes quantized, from its configuration; None where it does not."""
    values = getattr(config, "quantization_config", None)
    if values is None:
        return None
    if not isinstance(values, Mapping):
        values = values.to_dict()
    eight, four = values.get("load_in_8bit"), values.get("load_in_4bit")
    method = values.get("quant_method") or (BITSANDBYTES if eight or four else "an unknown method")
    method = str(getattr(method, "value", method))
    if method.startswith(BITSANDBYTES) and (eight or four):
        kind = "int8" if eight else str(values.get("bnb_4bit_quant_type", "fp4"))
        double = bool(four and values.get("bnb_4bit_use_double_quant"))
        return Quantization(BITSANDBYTES, 8 if eight else 4, kind, double, True)
    bits = values.get("bits", 8 if "fp8" in method else None)
    known = isinstance(bits, int) and not isinstance(bits, bool)
    return Quantization(method, bits if known else None, method, from_model=True)


def asked_for(bits: int) -> Quantization | None:
    """Return how a model is quantized while it is loaded, in 4 or 8 ``bits``; None for 0."""
    if not bits:
        return None
    return Quantization(BITSANDBYTES, bits, {4: "fp4", 8: "int8"}[bits])


def loaded(source: Source, config: Any, bits: int) -> Quantization | None:
    """Return how a model is quantized once it is loaded with ``bits`` asked for.

    Raises
    ------
    UserError
        If it comes quantized in another way.
    """
    own = own_quantization(config)
    if own is None:
        return asked_for(bits)
    if own.method != BITSANDBYTES or own.bits is None:
        raise source.refusal(
            f"it comes quantized to {own}, of which only bitsandbytes with 4 or 8 bits can be used",
            "name the model that it was made from",
        )
    if own.bits != bits:
        raise source.refusal(
            f"it comes quantized to {own}, but {source.bits} is {bits}",
            f"set {source.bits} to {own.bits}, or name the model that it was made from",
        )
    return own
