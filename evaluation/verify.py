"""Check bundles that participants handed in: `python -m evaluation.verify BUNDLE…`."""

if __name__ == "__main__":
    from submissions.verify.cli import run

    run()
