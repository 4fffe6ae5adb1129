"""Where everything lies in a bundle: one archive, readable by people, the same for everybody."""

SUMS = "SHA256SUMS"  # of every other file but the signatures, as `sha256sum` writes it
SIGNATURE = "signature.json"  # optional: a key's signature of SHA256SUMS
MODEL_SIGNATURE = "model.sig"  # optional: OpenSSF model signing
SUBMISSION = "submission.json"
PROVENANCE = "provenance.json"
ENVIRONMENT = "environment.json"

ADAPTER = "adapter"
WEIGHTS = f"{ADAPTER}/adapter_model.safetensors"  # absent where `weights.link` says where it is
ADAPTER_CONFIG = f"{ADAPTER}/adapter_config.json"
MANIFEST = f"{ADAPTER}/manifest.json"
CARD = f"{ADAPTER}/README.md"

HUB_RESULTS = ".eval_results"  # one YAML file, in Hugging Face's form

RESULTS = "results"
SCORES = f"{RESULTS}/results.json"
TABLE = f"{RESULTS}/results.md"
ROWS = f"{RESULTS}/rows"  # <set>.jsonl
LM_EVAL = f"{RESULTS}/lm-eval"
# data/<benchmark>/<owner>/<model>/<uuid>.json and <uuid>_samples.jsonl
EVERY_EVAL_EVER = f"{RESULTS}/every_eval_ever"

RUN = "run"
RUN_INFO = f"{RUN}/run.json"
ROUNDS = f"{RUN}/rounds.jsonl"
LEDGER = f"{RUN}/ledger.jsonl"
CHAIN = f"{RUN}/chain.jsonl"

DATA = "data"
FINGERPRINTS = f"{DATA}/fingerprints.json"
CONTAMINATION = f"{DATA}/contamination.json"
CROISSANT = f"{DATA}/croissant.json"

APP = "app"
APP_FILES = f"{APP}/files"  # the app's own files, as they lie in its folder
APP_DIFFERENCE = f"{APP}/template.diff"  # unified; empty where nothing differs
