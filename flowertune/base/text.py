"""How numbers read in a sentence."""

MIB = 2**20


def duration(seconds: float) -> str:
    """Return seconds as people say them: "42 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 client", "5 clients"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def is_utf8(text: str) -> bool:
    """Whether a text, such as a path, can be written as UTF-8."""
    # Python keeps the bytes of a path that are no text as halves of surrogate pairs.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def one_line(error: BaseException | str, length: int = 200) -> str:
    """Return an error's text on one line, cut at ``length`` characters; never empty.

    Control characters are written out: text from elsewhere must not steer a terminal.
    """
    text = " ".join(str(error).split())[:length]
    if not text.isprintable():
        escaped = (c if c.isprintable() else ascii(c)[1:-1] for c in text)
        text = "".join(escaped)[:length]
    return text or type(error).__name__
