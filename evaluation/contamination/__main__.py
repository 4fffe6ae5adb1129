"""`python -m evaluation.contamination`."""

from evaluation.contamination.cli import main

if __name__ == "__main__":
    main()
