"""The public names, for editors and type checkers."""

from flowertune.base.buffers import empty_like as empty_like
from flowertune.base.errors import UserError as UserError
from flowertune.base.numbers import as_int as as_int
from flowertune.base.seeds import derive_seed as derive_seed
from flowertune.cli.chat import ask as ask
from flowertune.client.app import client_app as client_app
from flowertune.client.task import ClientTask as ClientTask
from flowertune.comms.decoded import as_record as as_record
from flowertune.comms.exchange import RoundResult as RoundResult
from flowertune.config.settings import Settings as Settings
from flowertune.data.order import sample_clients as sample_clients
from flowertune.data.prompts import chat_prompt as chat_prompt
from flowertune.data.steps import Step as Step
from flowertune.data.tokens import IGNORED as IGNORED
from flowertune.methods.base import MethodClient as MethodClient
from flowertune.methods.base import MethodServer as MethodServer
from flowertune.methods.registry import method_server as method_server
from flowertune.models.auto_targets import target_modules as target_modules
from flowertune.models.loader import load_base_model as load_base_model
from flowertune.models.loader import load_tokenizer as load_tokenizer
from flowertune.models.loader import takes_logits_to_keep as takes_logits_to_keep
from flowertune.models.lora_choices import lora_choices as lora_choices
from flowertune.run.training import TrainingRun as TrainingRun
from flowertune.run.whole_model import average_models as average_models
from flowertune.run.whole_model import is_whole_model_run as is_whole_model_run

__all__: list[str]
