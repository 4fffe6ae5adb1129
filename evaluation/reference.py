"""`python -m evaluation.reference`: a band of reference runs (`submissions.convergence`)."""

if __name__ == "__main__":
    from submissions.convergence.cli import main

    main()
