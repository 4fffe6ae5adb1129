"""Forged bundles: every seal, hash and file that follows from others fits, and one fact is a lie.

Each is another kind than those in ``tampered``, with the check that has to name it.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from submissions import layout
from tests.submissions.tampered import Edit, Tampered, relabel

FORGED: list[Tampered] = []


def _kind(check: str, fit: str = "forge") -> Callable[..., Any]:
    """Register a change; ``fit`` says how much is made to fit afterwards: forge or sum."""

    def register(change: Callable[[Edit], Any]) -> Callable[[Edit], Any]:
        def whole(edit: Edit) -> None:
            change(edit)
            getattr(edit, fit)()

        FORGED.append(Tampered(change.__name__, check, whole))
        return change

    return register


def _one(edit: Edit, begin: str, end: str) -> str:
    """The one file whose name begins and ends so."""
    (name,) = (n for n in edit.files if n.startswith(begin) and n.endswith(end))
    return name


def _records(edit: Edit, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    records = edit.lines(layout.CHAIN)
    change(records)
    edit.write_lines(layout.CHAIN, records)


def _overlap(edit: Edit, path: str, value: Any) -> None:
    edit.put(layout.SCORES, f"contamination/{path}", value)
    edit.write(layout.CONTAMINATION, edit.json(layout.SCORES)["contamination"])


# --- settings, and what follows from them -------------------------------------------------------


@_kind("run/adapter-settings")
def alpha_larger_than_the_setting(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "lora_alpha", 6400)
    edit.both("adapter-config/lora_alpha", 6400)


@_kind("run/adapter-settings")
def a_rank_that_the_settings_do_not_have(edit: Edit) -> None:
    edit.both("settings/model.lora.peft-lora-r", 8)


@_kind("run/adapter-settings")
def modules_that_the_settings_do_not_name(edit: Edit) -> None:
    edit.both("settings/model.lora.target-modules", "q_proj")


@_kind("run/adapter-settings")
def another_scale_that_nothing_sets(edit: Edit) -> None:
    edit.put(layout.ADAPTER_CONFIG, "use_rslora", True)
    edit.both("adapter-config/use_rslora", True)


@_kind("run/settings")
def a_setting_that_no_run_takes(edit: Edit) -> None:
    edit.both("settings/train.seq-length", -5)


@_kind("run/settings")
def a_setting_left_out(edit: Edit) -> None:
    """Without it, no learning rate could be recomputed."""
    for name in (layout.MANIFEST, layout.RUN_INFO):
        settings = edit.json(name)["settings"]
        del settings["train.learning-rate-max"]
        edit.put(name, "settings", settings)
    edit.line(layout.ROUNDS, 1, **{"learning-rate": 0.1})


@_kind("run/settings")
def more_clients_than_the_settings_give(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "clients-per-round", 4)


@_kind("run/settings")
def another_prompt_in_the_manifest(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "prompt-template", "{question}")


@_kind("run/settings")
def a_quantized_model_in_a_full_precision_run(edit: Edit) -> None:
    edit.both("settings/model.quantization", 4)


@_kind("run/settings")
def automatic_modules_that_are_not_the_adapters(edit: Edit) -> None:
    edit.both("auto-targets/modules", ["k_proj"])


@_kind("run/method")
def a_method_that_the_template_has_not(edit: Edit) -> None:
    edit.both("settings/strategy.name", "fedmagic")


@_kind("run/method")
def an_option_that_the_method_has_not(edit: Edit) -> None:
    edit.both("settings/strategy.options", "mu=3")


@_kind("run/method")
def an_exact_method_with_a_residual(edit: Edit) -> None:
    edit.both("settings/strategy.name", "ffa-lora")
    line = edit.lines(layout.ROUNDS)[0]
    parts = dict.fromkeys(line["residuals"], 0.3)
    edit.line(layout.ROUNDS, 0, residual=0.3, residuals=parts)


@_kind("run/chain-record")
def a_method_with_momentum_that_kept_none(edit: Edit) -> None:
    edit.both("settings/strategy.name", "fedavgm")


@_kind("run/chain-record")
def a_state_that_the_method_does_not_keep(edit: Edit) -> None:
    _records(edit, lambda records: records[2].update({"strategy-sha256": "1" * 64}))


# --- chain --------------------------------------------------------------------------------------


@_kind("run/chain-record")
def a_round_with_two_results(edit: Edit) -> None:
    more = {"adapter-sha256": "2" * 64, "state-sha256": "3" * 64}
    _records(edit, lambda records: records.insert(1, {**records[1], **more}))


@_kind("run/chain-record")
def replies_before_the_first_round(edit: Edit) -> None:
    _records(edit, lambda records: records[0].update(replies=records[1]["replies"]))


@_kind("run/chain-record")
def a_whole_model_in_a_run_of_adapters(edit: Edit) -> None:
    _records(edit, lambda records: records[2].update({"model-sha256": "1" * 64}))


@_kind("run/chain-manifest")
def a_checkpoint_that_was_never_saved(edit: Edit) -> None:
    _records(edit, lambda records: records[2].update({"previous-manifest": "4" * 64}))


@_kind("run/chosen")
def a_choice_that_is_in_no_chain(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "checkpoint/chosen", "best")
    edit.put(layout.RUN_INFO, "chosen", {"round": 3, "rows": 5, "loss": 1.0})


@_kind("run/chosen")
def a_choice_that_no_server_made(edit: Edit) -> None:
    """In the chain as well; and the app's server is the template's, which makes none."""
    choice = {"round": 3, "rows": 5, "loss": 1.0}
    edit.put(layout.SUBMISSION, "checkpoint/chosen", "best")
    edit.put(layout.RUN_INFO, "chosen", choice)
    _records(edit, lambda records: records[-1].update(chosen=choice))


@_kind("run/chain-record")
def a_choice_of_a_later_round(edit: Edit) -> None:
    choice = {"round": 3, "rows": 5, "loss": 1.0}
    _records(edit, lambda records: records[1].update(chosen=choice))


# --- replies, messages, measures ----------------------------------------------------------------


@_kind("run/examples")
def a_client_that_weighs_less_in_one_round(edit: Edit) -> None:
    records = edit.lines(layout.CHAIN)
    replies = records[2]["replies"]
    replies["3"]["examples"] = 1
    edit.write_lines(layout.CHAIN, records)
    total = sum(reply["examples"] for reply in replies.values())
    mean = sum(r["train-loss"] * r["examples"] for r in replies.values()) / total
    edit.line(layout.ROUNDS, 1, **{"train-loss": mean})


@_kind("run/tokens")
def more_tokens_than_rows_can_have(edit: Edit) -> None:
    records = edit.lines(layout.CHAIN)
    for reply in records[2]["replies"].values():
        reply["tokens"] = 10**7
    edit.write_lines(layout.CHAIN, records)
    edit.line(layout.ROUNDS, 1, tokens=2 * 10**7)


def _losses(edit: Edit, of_reply: float | None, of_round: float) -> None:
    records = edit.lines(layout.CHAIN)
    for reply in records[3]["replies"].values():
        reply["train-loss"] = of_reply
    edit.write_lines(layout.CHAIN, records)
    edit.line(layout.ROUNDS, 2, **{"train-loss": of_round})


@_kind("run/train-loss")
def a_cross_entropy_below_zero(edit: Edit) -> None:
    _losses(edit, -1.0, -1.0)


@_kind("run/train-loss")
def a_loss_without_those_of_the_clients(edit: Edit) -> None:
    _losses(edit, None, 0.01)


@_kind("run/replies")
def a_reply_without_a_digest(edit: Edit) -> None:
    _records(edit, lambda records: records[2]["replies"]["3"].update(sha256=None))


@_kind("run/reply-bytes")
def a_reply_smaller_than_its_message(edit: Edit) -> None:
    _records(edit, lambda records: records[2]["replies"]["3"].update(bytes=3))


def _message(edit: Edit, partition: int, number: int = 1) -> None:
    lines = edit.lines(layout.LEDGER)
    place = next(n for n, entry in enumerate(lines) if entry["round"] == number)
    more = {"bytes": 0, "direction": "received", "partition": partition, "round": number}
    edit.write_lines(layout.LEDGER, [*lines[:place], more, *lines[place:]])


@_kind("run/messages")
def a_message_of_a_client_that_was_not_asked(edit: Edit) -> None:
    _message(edit, 0)


@_kind("run/messages")
def a_message_of_a_partition_that_is_none(edit: Edit) -> None:
    _message(edit, 77, 0)


@_kind("run/messages")
def nobody_answered_before_the_first_round(edit: Edit) -> None:
    edit.write_lines(layout.LEDGER, [e for e in edit.lines(layout.LEDGER) if e["round"]])
    relabel(edit, lambda entry: entry["bytes"])


@_kind("run/message-bytes")
def an_adapter_smaller_than_what_was_communicated(edit: Edit) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in tensors:
            if "lora_A" in name:
                tensors[name] = np.zeros((32, 7), np.float32)

    edit.weights(change)
    edit.own_state()


@_kind("run/ledger-sum")
def a_round_that_took_one_byte(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, **{"bytes-down": 1, "bytes-up": 1})


@_kind("run/measures")
def a_residual_beside_those_of_its_modules(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, residual=0.5)


@_kind("run/measures")
def residuals_of_other_modules(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, residuals={"another.module": 0.1}, residual=0.1)


@_kind("structure/fields")
def a_drift_below_zero(edit: Edit) -> None:
    edit.line(layout.ROUNDS, 0, drift=-3.0)


@_kind("run/finished")
def a_budget_that_stopped_nothing(edit: Edit) -> None:
    """The best of many rounds, as if the next had passed the budget."""
    edit.both("rounds", 200)
    edit.both("settings/num-server-rounds", 200)
    edit.put(layout.RUN_INFO, "reason", "stopped after round 3: the next would pass the budget")
    settings = edit.json(layout.MANIFEST)["settings"]
    low, high = settings["train.learning-rate-min"], settings["train.learning-rate-max"]
    for number in range(3):
        rate = low + 0.5 * (high - low) * (1 + math.cos(math.pi * (number + 1) / 200))
        edit.line(layout.ROUNDS, number, **{"learning-rate": rate})


# --- weights ------------------------------------------------------------------------------------


@_kind("run/adapter-shapes")
def a_layer_beside_the_adapter(edit: Edit) -> None:
    more = {"base_model.model.lm_head.weight": np.ones((4, 4), np.float32)}
    edit.weights(lambda tensors: tensors.update(more))
    edit.own_state()


@_kind("run/adapter-shapes")
def weights_in_another_type(edit: Edit) -> None:
    halved = {name: t.astype(np.float16) for name, t in load(edit.files[layout.WEIGHTS]).items()}
    edit.files[layout.WEIGHTS] = save(halved, metadata={"format": "pt"})
    edit.own_state()


@_kind("structure/weights", "sum")
def a_text_hidden_in_the_weights(edit: Edit) -> None:
    tensors = load(edit.files[layout.WEIGHTS])
    edit.files[layout.WEIGHTS] = save(tensors, metadata={"format": "pt", "note": "x" * 1000})


# --- rows, pins, base model ---------------------------------------------------------------------


@_kind("run/pinned-claim")
def rows_that_nobody_pinned_as_verified(edit: Edit) -> None:
    edit.both("pinned/training-rows", "verified")


@_kind("score/pinned")
def a_base_model_that_nobody_pinned_as_verified(edit: Edit) -> None:
    edit.put(layout.SCORES, "pinned/base-model", "verified")


@_kind("score/pinned")
def rows_on_record_as_if_they_were_not(edit: Edit) -> None:
    edit.put(layout.SCORES, "sets/fpb/data/on-record", False)


@_kind("run/data-report")
def a_data_report_of_other_rows(edit: Edit) -> None:
    edit.put(layout.RUN_INFO, "data/rows", 9999)


@_kind("run/data-report")
def more_rows_visited_than_trained_on(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "rows-visited", 1.0)


@_kind("rules/division")
def a_proposed_change_of_the_default_model(edit: Edit) -> None:
    revision = "refs/pr/7"
    edit.put(layout.MANIFEST, "base-model/revision", revision)
    edit.both("settings/model.revision", revision)
    edit.both("adapter-config/revision", revision)
    edit.put(layout.ADAPTER_CONFIG, "revision", revision)
    edit.put(layout.SCORES, "provenance/base-model/revision", revision)


@_kind("score/base-model")
def scored_at_another_commit_of_the_base_model(edit: Edit) -> None:
    edit.put(layout.MANIFEST, "base-model/commit", "a" * 40)
    edit.put(layout.SCORES, "provenance/base-model/commit", "b" * 40)


# --- score --------------------------------------------------------------------------------------


@_kind("score/official")
def another_type_of_four_bits(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/quantization-type", "nf4")


@_kind("score/official")
def a_model_that_came_quantized(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/quantized-by", "the model's files")


@_kind("score/official")
def the_best_of_ten_samples(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/samples", 10)


@_kind("score/times")
def scored_before_it_was_trained(edit: Edit) -> None:
    edit.put(layout.SCORES, "provenance/started", "2020-01-01T00:00:00Z")


@_kind("contamination/training-rows")
def an_overlap_with_one_training_row(edit: Edit) -> None:
    _overlap(edit, "training/rows", 1)


@_kind("contamination/overlap")
def an_overlap_of_a_hundred_words(edit: Edit) -> None:
    _overlap(edit, "n-gram", 100)


# --- files that follow from others --------------------------------------------------------------


@_kind("rules/submission", "sum")
def another_digest_of_the_checkpoint(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "checkpoint/digest", "0" * 64)


@_kind("rules/submission", "sum")
def another_size_of_the_weights(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "weights/bytes", 5)


@_kind("rules/submission", "sum")
def weights_here_and_elsewhere(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "weights/link", "https://example.org/other.safetensors")


@_kind("rules/submission", "sum")
def submitted_before_it_was_made(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "created", "2020-01-01T00:00:00Z")


@_kind("structure/fields", "sum")
def a_team_without_a_visible_name(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "team", "\u3164\u3164")


@_kind("structure/fields", "sum")
def a_team_whose_name_covers_other_lines(edit: Edit) -> None:
    edit.put(layout.SUBMISSION, "team", "a" + "\u0301" * 90)


@_kind("system/environment", "sum")
def another_machine_in_the_environment(edit: Edit) -> None:
    edit.put(layout.ENVIRONMENT, "hardware/cores", 999)


@_kind("system/environment")
def a_library_that_was_not_installed(edit: Edit) -> None:
    edit.both("environment/packages/flowertune", "0.0.1")


@_kind("system/versions")
def a_run_without_torch(edit: Edit) -> None:
    packages = edit.json(layout.MANIFEST)["environment"]["packages"]
    del packages["torch"]
    edit.both("environment/packages", packages)


@_kind("structure/provenance", "sum")
def a_trusted_builder(edit: Edit) -> None:
    edit.put(layout.PROVENANCE, "predicate/runDetails/builder/id", "https://example.org/builder")


@_kind("structure/provenance", "sum")
def nothing_went_in(edit: Edit) -> None:
    edit.put(layout.PROVENANCE, "predicate/buildDefinition/resolvedDependencies", [])


@_kind("structure/croissant", "sum")
def a_training_set_from_elsewhere(edit: Edit) -> None:
    edit.put(layout.CROISSANT, "url", "https://example.org/rows")


@_kind("run/fingerprints", "sum")
def fewer_different_rows(edit: Edit) -> None:
    edit.put(layout.FINGERPRINTS, "all/unique-rows", 1)


@_kind("score/formats", "sum")
def a_better_table_on_the_card(edit: Edit) -> None:
    edit.files[layout.CARD] = edit.files[layout.CARD].replace(
        b"| average | | 33.33 |", b"| average | | 93.33 |"
    )


@_kind("score/formats", "sum")
def another_base_model_on_the_card(edit: Edit) -> None:
    edit.files[layout.CARD] = edit.files[layout.CARD].replace(
        b"library_name: peft", b"library_name: peft\nbase_model: somebody/other"
    )


@_kind("score/formats", "sum")
def results_on_another_benchmark(edit: Edit) -> None:
    name = _one(edit, layout.HUB_RESULTS, ".yaml")
    edit.files[name] = edit.files[name].replace(b"/flowertune-finance", b"/mmlu")


@_kind("score/formats", "sum")
def results_that_somebody_verified(edit: Edit) -> None:
    name = _one(edit, layout.HUB_RESULTS, ".yaml")
    edit.files[name] = edit.files[name].replace(b"declared by the", b"verified by the")


@_kind("structure/unknown-file", "sum")
def results_of_another_challenge(edit: Edit) -> None:
    name = _one(edit, layout.HUB_RESULTS, ".yaml")
    edit.files[f"{layout.HUB_RESULTS}/mmlu.yaml"] = edit.files[name]


@_kind("score/formats", "sum")
def a_narrower_interval_in_the_record(edit: Edit) -> None:
    name = _one(edit, layout.EVERY_EVAL_EVER, ".json")
    lower = "evaluation_results/0/score_details/uncertainty/confidence_interval/lower"
    edit.put(name, lower, 16.0)


@_kind("score/formats", "sum")
def right_answers_in_the_record(edit: Edit) -> None:
    name, rows = (_one(edit, layout.EVERY_EVAL_EVER, end) for end in (".json", ".jsonl"))
    edit.line(rows, 0, evaluation={"is_correct": True, "score": 1.0})
    digest = hashlib.sha256(edit.files[rows]).hexdigest()
    edit.put(name, "detailed_evaluation_results/checksum", digest)


@_kind("score/formats", "sum")
def a_better_mean_of_lm_eval(edit: Edit) -> None:
    name = _one(edit, f"{layout.LM_EVAL}/results_", ".json")
    edit.put(name, "results/flowertune_finance_fpb_official/acc,none", 0.99)


@_kind("score/formats", "sum")
def a_better_sample_of_lm_eval(edit: Edit) -> None:
    name = _one(edit, f"{layout.LM_EVAL}/samples_flowertune_finance_fpb", ".jsonl")
    edit.line(name, 0, acc=1.0)


@_kind("score/formats", "sum")
def more_samples_of_lm_eval(edit: Edit) -> None:
    name = _one(edit, f"{layout.LM_EVAL}/samples_flowertune_finance_fpb", ".jsonl")
    edit.files[name] += json.dumps({"doc_id": 77}).encode() + b"\n"


@_kind("structure/unknown-file", "sum")
def a_page_among_files_of_lm_eval(edit: Edit) -> None:
    edit.files[f"{layout.LM_EVAL}/more.html"] = b"<script>alert(1)</script>"


@_kind("structure/unknown-file", "sum")
def rows_of_a_set_that_is_none(edit: Edit) -> None:
    edit.files[f"{layout.ROWS}/other.jsonl"] = b"{}\n"


@_kind("structure/unreadable", "sum")
def results_with_a_number_without_end(edit: Edit) -> None:
    name = _one(edit, layout.HUB_RESULTS, ".yaml")
    edit.files[name] = b"- " + b":".join([b"59"] * 5000) + b"\n"  # base 60, as YAML 1.1 has it


@_kind("structure/unreadable", "sum")
def keys_that_cannot_be_put_in_order(edit: Edit) -> None:
    edit.files[layout.CARD] = b"---\n1: 2\na: 3\n---\n"


@_kind("structure/unreadable", "sum")
def metadata_that_take_minutes_to_read(edit: Edit) -> None:
    edit.files[layout.CARD] = b"---\n" + b"a: [b]\n" * 100_000 + b"---\n"


@_kind("structure/weights", "sum")
def weights_whose_type_is_a_list(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = _weights({"a": _tensor(dtype=["F32"])}, bytes(4))


@_kind("structure/weights", "sum")
def weights_that_overlap(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = _weights({"a": _tensor(), "b": _tensor()}, bytes(4))


@_kind("structure/weights", "sum")
def weights_with_bytes_behind_them(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = _weights({"a": _tensor()}, bytes(8))


@_kind("structure/weights", "sum")
def weights_whose_type_is_wider_than_their_bytes(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = _weights({"a": _tensor(dtype="F64")}, bytes(4))


@_kind("structure/weights", "sum")
def a_tensor_that_is_there_twice(edit: Edit) -> None:
    one = json.dumps(_tensor())
    edit.files[layout.WEIGHTS] = _weights(f'{{"a": {one}, "a": {one}}}', bytes(4))


@_kind("structure/weights", "sum")
def a_header_that_fills_the_memory(edit: Edit) -> None:
    edit.files[layout.WEIGHTS] = struct.pack("<Q", 2**40) + b"{}"


@_kind("structure/app-size", "sum")
def an_app_that_fills_the_memory(edit: Edit) -> None:
    noise = np.random.default_rng(0).bytes(700_000)
    edit.files[f"{layout.APP_FILES}/table.csv"] = noise + b"0" * 2**26


def _tensor(**other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **other}


def _weights(header: Any, data: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


@_kind("run/app-shadows")
def an_app_in_place_of_the_library(edit: Edit) -> None:
    edit.app("flowertune/rules/lock.py", b"check_lock = lambda *given: []\n")
