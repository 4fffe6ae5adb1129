"""A FlowerTune LLM challenge as a Flower app: federated LoRA fine-tuning."""
