"""``python -m evaluation.replay BUNDLE``: train drawn rounds of a submission again."""

if __name__ == "__main__":
    # Late: what is made of submissions lies above the scorer.
    from submissions.replay.cli import main

    raise SystemExit(main())
