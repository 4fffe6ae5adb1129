"""``python -m evaluation.submit RUN``: make a bundle of a scored run."""

if __name__ == "__main__":
    # Late: what is made of submissions lies above the scorer.
    from submissions.bundle.cli import main

    raise SystemExit(main())
