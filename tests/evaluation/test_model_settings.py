"""A model's generation_config: followed as officially, or named; the standard suite is greedy."""

import json
import shutil

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
)

from evaluation import cli, code, finance, general_nlp, lm, model_settings, run
from flowertune.base.errors import UserError

PROMPTS = ["Is it so", "What</s> of </s>it", "Ends with it</s>", "</s>Begins", "A"]
GOLD = "maybe"  # five tokens of the tiny tokenizer
EXAM = general_nlp.CHALLENGE.sets[0].form("official").config()["generation_kwargs"]
FINANCE = finance.CHALLENGE.sets[0].form("official").config()["generation_kwargs"]
CODE = code.CHALLENGE.sets[0].form("standard").config()["generation_kwargs"]


@pytest.fixture(scope="module")
def speaker(tiny):
    """A model to which every token of a prompt matters, and its tokenizer."""
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(tiny, initializer_range=0.5)
    return AutoModelForCausalLM.from_config(config).eval(), AutoTokenizer.from_pretrained(tiny)


@pytest.fixture
def with_settings(speaker):
    """Give the tiny model settings of its own; they are taken back afterwards."""
    model, tokenizer = speaker
    before = model.generation_config

    def give(**values):
        fresh = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1)
        fresh.update(**values)
        model.generation_config = fresh
        return model, tokenizer

    yield give
    model.generation_config = before


def answered(model, tokenizer, way, kwargs, batch_size=3):
    """Answers to all prompts from the scorer, as it decides about the model's settings."""
    given = model.generation_config
    model.generation_config = model_settings.decide(given, way).config
    with run.suppress_logs():
        scorer = lm.RowwiseLM(model, tokenizer, batch_size)
    requests = [
        Instance("generate_until", {"as_long_as": GOLD}, (p, kwargs), 0, ("t", n, 1), resps=[])
        for n, p in enumerate(PROMPTS)
    ]
    found = scorer.generate_until(requests)
    model.generation_config = given
    return found


def exam_texts(model, tokenizer):
    """The official loop of general NLP and medical: no attention mask."""
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, return_tensors="pt")
        out = model.generate(
            inputs=ids,
            max_new_tokens=len(tokenizer(GOLD, add_special_tokens=False)["input_ids"]),
            do_sample=False,
            top_p=1.0,
            temperature=1.0,
            pad_token_id=tokenizer.eos_token_id,
        )
        texts.append(tokenizer.decode(out[0][len(ids[0]) :], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_beams": 3, "length_penalty": 2.0},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1},
        {"max_new_tokens": 2, "do_sample": True, "top_k": 5},
        {"min_new_tokens": 5},
        {"eos_token_id": 7},
        {"eos_token_id": [7, 1]},
        {"eos_token_id": None},
        {"eos_token_id": 7, "repetition_penalty": 1.3},
        {"eos_token_id": 7, "num_beams": 3},
    ],
    ids=str,
)
def test_multiple_choice_follows_all_of_it(values, with_settings):
    model, tokenizer = with_settings(**values)
    assert answered(model, tokenizer, "greedy", EXAM) == exam_texts(model, tokenizer)


def test_an_end_token_in_a_prompt_is_masked_where_it_pads_and_does_not_end(with_settings):
    """Without an attention mask, transformers takes it for padding; or else it does not."""
    model, tokenizer = with_settings(eos_token_id=7)
    masked = answered(model, tokenizer, "greedy", EXAM)
    model.generation_config.eos_token_id = [7, 1]
    seen = answered(model, tokenizer, "greedy", EXAM)
    differ = [one != other for one, other in zip(masked, seen, strict=True)]
    assert differ[0] is differ[4] is False
    assert sum(differ) >= 2


@pytest.mark.parametrize("values", [{"max_new_tokens": 6}, {"max_new_tokens": 6, "num_beams": 3}])
def test_finance_follows_beams_and_the_number_of_new_tokens(values, with_settings):
    model, tokenizer = with_settings(**values)
    expected = []
    for prompt in PROMPTS:
        tokens = tokenizer([prompt], return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**tokens, max_length=512, eos_token_id=tokenizer.eos_token_id)
        expected.append(tokenizer.decode(out[0], skip_special_tokens=True))
    assert answered(model, tokenizer, "rows", FINANCE) == expected


def test_the_standard_suite_is_greedy_whatever_the_model_says(with_settings):
    kwargs = {**CODE, "max_length": 40}
    model, tokenizer = with_settings()
    greedy = answered(model, tokenizer, "plain", kwargs)
    given = {"num_beams": 3, "repetition_penalty": 1.5, "max_new_tokens": 2, "do_sample": True}
    model, tokenizer = with_settings(**given, stop_strings=["a"])
    assert answered(model, tokenizer, "plain", kwargs) == greedy


def test_without_an_end_token_answers_go_on_to_their_limit(speaker, with_settings, tmp_path):
    model, tokenizer = with_settings(eos_token_id=None, pad_token_id=None, max_new_tokens=7)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k[:3] not in ("eos", "pad")}))
    endless = AutoTokenizer.from_pretrained(tmp_path)
    assert endless.eos_token is endless.pad_token is None
    endless.pad_token = endless.convert_ids_to_tokens(0)
    assert answered(model, endless, "greedy", EXAM) == exam_texts(model, endless)
    rows = answered(model, endless, "rows", FINANCE)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        assert row.startswith(prompt.replace("</s>", "")) or "</s>" in prompt
        assert len(endless(row)["input_ids"]) > len(endless(prompt)["input_ids"]) - 3
    ends = answered(model, endless, "plain", {**CODE, "max_length": 30})
    assert all("<s>" not in text for text in ends)


def decided(way, **values):
    return model_settings.decide(GenerationConfig(eos_token_id=1, **values), way)


@pytest.mark.parametrize(
    ("way", "values", "followed", "named"),
    [
        ("greedy", {"temperature": 0.6, "do_sample": True, "max_new_tokens": 5}, {}, ""),
        ("greedy", {"num_beams": 4, "num_return_sequences": 2}, {"num_beams": 4}, ""),
        ("greedy", {"num_beams": 1, "length_penalty": 2.0, "use_cache": False}, {}, ""),
        ("greedy", {"stop_strings": ["x"]}, {}, "stop_strings ['x'] of the model's"),
        ("rows", {"max_new_tokens": 5}, {"max_new_tokens": 5}, ""),
        ("rows", {"do_sample": True, "num_beams": 2}, {}, "answers are greedy, although"),
        (
            "rows",
            {"num_beams": 4, "num_return_sequences": 2},
            {"num_beams": 4},
            "num_return_sequences 2 of the model's",
        ),
        ("batches", {"do_sample": True, "top_k": 3}, {"do_sample": True, "top_k": 3}, ""),
        ("drawn", {"do_sample": True, "temperature": 9.0, "top_k": 3}, {}, ""),
        ("drawn", {"min_p": 0.1}, {}, "min_p 0.1 of the model's generation_config is left out"),
        ("drawn", {"num_beams": 2}, {}, "num_beams 2 of the model's"),
        ("drawn", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}, ""),
        ("plain", {"num_beams": 2, "stop_strings": ["x"], "do_sample": True}, {}, ""),
    ],
)
def test_what_is_followed_and_what_is_named(way, values, followed, named):
    settings = decided(way, **values)
    assert settings.followed == followed
    assert len(settings.departures) == bool(named)
    assert all(named in phrase for phrase in settings.departures)
    assert settings.config.eos_token_id == 1


def test_a_way_to_decode_that_is_gone_is_one_sentence():
    with pytest.raises(UserError, match=r"contrastive search.*penalty_alpha 0.6.*--suite standard"):
        decided("greedy", penalty_alpha=0.6)
    assert decided("plain", penalty_alpha=0.6).followed == {}


def test_a_departure_is_said_before_the_model_is_loaded_and_recorded(
    tiny_with_settings, tmp_path, capsys, monkeypatch
):
    base = tiny_with_settings(do_sample=True, max_new_tokens=3)
    words = ["--model", base, "--sample", "--sets", "fiqa", "--limit", "2"]
    words += ["--quantization", "0", "--output", tmp_path / "out"]
    from evaluation import model as loading

    load, said = loading.load_base, []

    def spied(choice):
        said.append(capsys.readouterr().err)
        return load(choice)

    monkeypatch.setattr(loading, "load_base", spied)
    cli.main("finance", [str(word) for word in words])
    assert "as officially: max_new_tokens 3." in said[0]
    assert "Not as the official scorer: answers are greedy, although" in said[0]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert any("says do_sample" in phrase for phrase in results["deviations"])
    assert results["decoding"]["generation-config"] == {"max_new_tokens": 3}


@pytest.fixture
def tiny_with_settings(tiny, tmp_path):
    import shutil

    def make(**values):
        folder = shutil.copytree(tiny, tmp_path / "base")
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return make


def test_rows_longer_than_learned_positions_are_one_sentence(speaker):
    _, tokenizer = speaker
    config = GPT2Config(n_positions=8)
    lm.check_positions("fpb", ["short"], tokenizer, config)
    with pytest.raises(UserError, match=r"row 2 of fpb has 14 tokens.*only 8 positions.*--model"):
        lm.check_positions("fpb", ["short", "longer than 8."], tokenizer, config)


def test_answers_end_at_learned_positions_and_the_result_says_so(speaker):
    _, tokenizer = speaker
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=40)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=1)
    texts = answered(model, tokenizer, "plain", {**CODE, "until": ["never"]})
    assert any(texts)
    assert all(len(text) < 40 for text in texts)
    assert lm.positions_departure(CODE, config) == (
        "answers end at the model's 40 positions (the official scorer stops with an error there, "
        "and allows 2048 tokens)"
    )
    assert lm.positions_departure(EXAM, config) is None


def test_rows_longer_than_computed_positions_are_scored(speaker):
    model, tokenizer = speaker
    assert model.config.max_position_embeddings == 1024
    lm.check_positions("fpb", ["w" * 2000], tokenizer, model.config)


def test_tokens_that_the_model_does_not_know_are_one_sentence(speaker):
    model, tokenizer = speaker
    longer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    longer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    lm.check_vocabulary(model, longer, {"fpb": [{"context": "known"}]})
    with pytest.raises(UserError, match="row 2 of stem has the token '<new>', number 258 of 259"):
        lm.check_vocabulary(model, longer, {"stem": [{}, {"choices": ["a", "b <new>"]}]})


def test_code_prompts_are_cut_on_the_left_as_officially(speaker):
    _, tokenizer = speaker
    kwargs = {"max_length": 5, "truncate": True}
    side = tokenizer.truncation_side
    assert lm.prompt_tokens("1234567", kwargs, tokenizer) == tokenizer("34567")["input_ids"]
    assert tokenizer.truncation_side == side
    lm.check_lengths("mbpp", ["1234567"], kwargs, tokenizer, max_new_tokens=4)
    with pytest.raises(UserError, match="first row 1 with 7 tokens"):
        lm.check_lengths("mbpp", ["1234567"], kwargs, tokenizer, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", -1),
        ("num_beams", "x"),
        ("num_beams", 10**9),
        ("forced_eos_token_id", 99999),
        ("bad_words_ids", [[99999]]),
        ("repetition_penalty", 0),
    ],
)
def test_a_setting_that_stops_generation_is_named_before_the_model_is_loaded(
    name, value, tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("evaluation.model.load_base", lambda _: pytest.fail("model was loaded"))
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, name: value}))
    with pytest.raises(SystemExit):
        cli.main("finance", ["--model", str(folder), "--sample", "--quantization", "0"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: the model's generation_config has {name} {value!r}, with")


def test_settings_that_work_pass_and_a_drawn_one_is_tried_while_drawing():
    fine = GenerationConfig(num_beams=2, bad_words_ids=[[5]], repetition_penalty=1.5)
    model_settings.check(model_settings.decide(fine, "rows"), 40)
    drawn = GenerationConfig()
    drawn.update(do_sample=True, temperature=-5.0)
    with pytest.raises(UserError, match=r"has temperature -5\.0, with which nothing can"):
        model_settings.check(model_settings.decide(drawn, "batches"), 40)
