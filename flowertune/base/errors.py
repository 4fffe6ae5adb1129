"""The errors that a user can act on."""


class UserError(ValueError):
    """Something the user gave cannot be used; the text is one sentence that says what to change."""


class SettingsError(UserError):
    """One or more settings are wrong; ``problems`` holds a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(" ".join(problems))
