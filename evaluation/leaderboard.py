"""``python -m evaluation.leaderboard BUNDLE… -o DIR``: a board made of what was verified."""

if __name__ == "__main__":
    # Late: what is made of submissions lies above the scorer.
    from submissions.board.cli import main

    raise SystemExit(main())
