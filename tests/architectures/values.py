"""What is small in a tiny model, by the names that architectures have for it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

OVERRIDES = Path(__file__).with_name("overrides.json")
WIDTH, HEADS, HEAD, LAYERS, EXPERTS, POSITIONS = 32, 4, 8, 2, 4, 1024
VOCABULARY = 258  # of the byte tokenizer

# What a value is called in architectures, and what it is in a tiny model.
_VALUES: tuple[tuple[int, str], ...] = (
    (
        WIDTH,
        "hidden_size d_model n_embd embedding_size emb_dim word_embed_proj_dim dim_model_base "
        "lru_width q_lora_rank input_embedding_size output_embedding_size embedding_dim",
    ),
    (
        HEADS,
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads attention_heads "
        "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads "
        "swa_num_attention_heads index_n_heads linear_num_value_heads n_mamba_heads",
    ),
    (
        HEADS // 2,
        "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads "
        "kv_n_heads num_experts_per_tok moe_topk moe_top_k moe_k top_k_experts n_group topk_group "
        "num_query_groups",
    ),
    (
        HEAD,
        "head_dim swa_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim kv_channels "
        "linear_value_head_dim qk_rope_head_dim index_head_dim d_head rotary_dim global_head_dim "
        "swa_v_head_dim d_kv dim_head query_pre_attn_scalar mamba_d_head mamba_headdim",
    ),
    (
        16,
        "kv_lora_rank o_lora_rank state_size ssm_state_size mamba_d_state time_step_rank "
        "mamba_dt_rank chunk_size mamba_chunk_size router_hidden_size adapter_rank hc_lowrank",
    ),
    (
        48,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim moe_intermediate_size d_inner "
        "n_inner dff dim_ff d_ff ffn_hidden_size shared_expert_intermediate_size "
        "intermediate_size_mlp shared_intermediate_size expert_ffn_hidden_size "
        "dense_intermediate_size moe_shared_expert_intermediate_size feed_forward_size",
    ),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
        "num_encoder_layers num_decoder_layers num_blocks num_layers_per_stack",
    ),
    (EXPERTS, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (
        POSITIONS,
        "max_position_embeddings n_positions n_ctx max_target_positions "
        "max_source_positions max_seq_len context_length",
    ),
    (VOCABULARY, "vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size"),
)
_SMALL = {name: value for value, names in _VALUES for name in names.split()}
_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type")
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_REMOVED = {"model_type", "transformers_version", "id2label", "label2id", "architectures"}


@cache
def overrides() -> dict[str, dict[str, Any]]:
    """What is given for an architecture beside the general table: values of its configuration."""
    return json.loads(OVERRIDES.read_text("utf-8"))


def tiny(values: dict[str, Any]) -> dict[str, Any]:
    """Return what is changed in a configuration's values, and in those of its parts."""
    small: dict[str, Any] = {}
    for name, value in values.items():
        if name in _REMOVED:
            continue
        if isinstance(value, dict) and "model_type" in value:
            small[name] = tiny(value)
        elif name in _SMALL and isinstance(value, int) and not isinstance(value, bool) and value:
            small[name] = _SMALL[name]
        elif name in TOKENS:
            small[name] = TOKENS[name]
    if "kv_lora_rank" in small:  # multi-head latent attention: keys and values for every head
        small |= {"num_key_value_heads": HEADS}
    named = [name for name in _BY_LAYER if isinstance(values.get(name), list)]
    if named:  # one layer of each kind
        layers = list(dict.fromkeys(zip(*(values[name] for name in named), strict=True)))
        layers = layers * LAYERS if len(layers) == 1 else layers
        small |= {name: [layer[n] for layer in layers] for n, name in enumerate(named)}
        counts = {"num_hidden_layers", "num_layers"} & values.keys()
        small |= dict.fromkeys(counts, len(layers))
    return small


def merged(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return values, with those that are given in their place, in their parts, too."""
    whole = dict(values)
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(whole.get(name), dict):
            whole[name] = merged(whole[name], value)
        else:
            whole[name] = value
    return whole
