"""Ask a trained checkpoint: python test.py --peft-path=results/<run id>/peft_100 --question="…"."""

import flowertune

if __name__ == "__main__":
    raise SystemExit(flowertune.ask())
