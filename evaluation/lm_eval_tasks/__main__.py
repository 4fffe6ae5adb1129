"""Print the folder for `lm_eval run --include_path`."""

from pathlib import Path

if __name__ == "__main__":
    print(Path(__file__).parent)
