"""Ask a trained checkpoint: python test.py --peft-path=results/<run id>/peft_100 --question="…"."""

from flowertune.cli.chat import main

if __name__ == "__main__":
    raise SystemExit(main())
