"""`--backend vllm`: lm-eval's own vLLM model, over a stand-in for the engine.

vLLM needs a GPU and a build of its own. The stand-in takes what lm-eval hands to vLLM and answers
with transformers, so that options, requests and answers are those of a real one.
"""

import importlib
import importlib.machinery
import importlib.metadata
import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import cli, vllm_backend
from tests.evaluation.checkpoints import save_checkpoint

OPTIONS = ("--sample", "--suite", "standard", "--quantization", "0", "--limit", "3")


@dataclass
class SamplingParams:
    temperature: float = 1.0
    prompt_logprobs: int | None = None
    max_tokens: int = 16
    detokenize: bool = True
    stop: list[str] = field(default_factory=list)
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class Engine:
    """What lm-eval uses of `vllm.LLM`, by transformers."""

    made: ClassVar[list["Engine"]] = []

    def __init__(self, model: str, enable_lora: bool, max_lora_rank: int, **options: Any):
        self.options = options
        self.ranks = max_lora_rank if enable_lora else 0
        self.folder, self.models = model, {}
        positions = types.SimpleNamespace(max_model_len=1024)
        self.llm_engine = types.SimpleNamespace(model_config=positions)
        Engine.made.append(self)

    def model(self, lora: LoRARequest | None) -> Any:
        key = lora and lora.lora_path
        if key not in self.models:
            loaded: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
            if key:
                from peft import PeftModel

                loaded = PeftModel.from_pretrained(loaded, key)
                assert max(c.r for c in loaded.peft_config.values()) <= self.ranks
            self.models[key] = loaded.eval()
        return self.models[key]

    @torch.no_grad()
    def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool, lora_request: Any):
        model, tokenizer = self.model(lora_request), AutoTokenizer.from_pretrained(self.folder)
        made = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            ids = torch.tensor([prompt["prompt_token_ids"]])
            scores = torch.log_softmax(model(ids).logits[0], dim=-1)
            logprobs: list[Any] = [None]
            for place, token in enumerate(ids[0, 1:].tolist()):
                best = int(scores[place].argmax())
                logprobs.append({t: float(scores[place, t]) for t in {token, best}})
            text = ""
            if params.prompt_logprobs is None:
                assert params.temperature == 0
                new = model.generate(ids, max_new_tokens=params.max_tokens, do_sample=False)
                text = tokenizer.decode(new[0, ids.shape[1] :])
            output = types.SimpleNamespace(text=text)
            made.append(types.SimpleNamespace(outputs=[output], prompt_logprobs=logprobs))
        return made


@pytest.fixture
def vllm(monkeypatch):
    """A package vllm that is the stand-in; gives back the engines that were made."""

    def package(name: str, **names: Any) -> None:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)

    package("vllm", LLM=Engine, SamplingParams=SamplingParams, TokensPrompt=dict)
    package("vllm.lora")
    package("vllm.lora.request", LoRARequest=LoRARequest)
    package("vllm.renderers")
    package("vllm.renderers.hf", resolve_chat_template=lambda **_: None)
    package(
        "vllm.tokenizers",
        get_tokenizer=lambda name, tokenizer_mode, **options: AutoTokenizer.from_pretrained(name),
    )
    real = importlib.metadata.version

    def version(name: str) -> str:
        return "0.33.0" if name == "vllm" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("flowertune.base.versions.version", version)
    # lm-eval registers the class once in a process, so its module stays loaded.
    importlib.import_module("lm_eval.models.vllm_causallms")
    Engine.made.clear()
    return Engine.made


def results_of(challenge: str, folder: Path, *words: Any) -> dict[str, Any]:
    cli.main(challenge, [str(word) for word in (*words, "--output", folder)])
    return json.loads((folder / "results.json").read_text())


def test_choices_are_decided_as_by_transformers(vllm, finance_checkpoint, tmp_path, capsys):
    words = [finance_checkpoint, *OPTIONS, "--compare", "base"]
    ours = results_of("finance", tmp_path / "ours", *words)
    theirs = results_of("finance", tmp_path / "vllm", *words, "--backend", "vllm")
    assert ours["sets"] == theirs["sets"]
    (engine,) = vllm
    assert engine.ranks == 8
    assert set(engine.models) == {None, next(path for path in engine.models if path)}
    assert any("computed by vllm" in deviation for deviation in theirs["deviations"])
    assert theirs["provenance"]["versions"]["vllm"] == "0.33.0"


def test_programs_have_the_tasks_limit_and_end_where_they_would(vllm, tiny, tmp_path, monkeypatch):
    shown = []

    def none_pass(programs, **_):
        shown.append([program.code for program in programs])
        outcome = types.SimpleNamespace(passed=False, status="failed", detail="")
        return [outcome for _ in programs]

    monkeypatch.setattr("evaluation.programs.check", lambda *_, **__: "none")
    monkeypatch.setattr("evaluation.programs.run_all", none_pass)
    words = ["--model", tiny, *OPTIONS, "--sets", "mbpp", "--answer-tokens", 6]
    results_of("code", tmp_path / "ours", *words)
    results_of("code", tmp_path / "vllm", *words, "--backend", "vllm")
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--suite", "official"], "--backend vllm is for --suite standard"),
        (["--quantization", "4"], "--quantization is 4: add --quantization 0"),
    ],
)
def test_what_it_is_not_for_is_one_sentence(words, sentence, vllm, finance_checkpoint, capsys):
    with pytest.raises(SystemExit):
        cli.main("finance", [str(finance_checkpoint), *OPTIONS, "--backend", "vllm", *words])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert sentence in line
    assert not vllm


def test_without_the_package_it_says_so(finance_checkpoint, capsys):
    with pytest.raises(SystemExit):
        cli.main("finance", [str(finance_checkpoint), *OPTIONS, "--backend", "vllm"])
    assert "needs the package vllm, which is not installed" in capsys.readouterr().err


def test_an_adapter_it_cannot_serve_is_one_sentence(vllm, tiny, tmp_path, capsys):
    folder = save_checkpoint(tmp_path / "peft_2", tiny)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(vllm_backend.UserError, match=r"has use_dora, which --backend vllm cannot"):
        vllm_backend.check_adapter(folder, "mine")


def test_an_engine_that_does_not_start_is_one_sentence(vllm, tiny, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("lm_eval.models.vllm_causallms.LLM", lambda **_: 1 / 0)
    with pytest.raises(SystemExit):
        results_of("finance", tmp_path, "--model", tiny, *OPTIONS, "--backend", "vllm")
    assert "vLLM cannot load" in capsys.readouterr().err
