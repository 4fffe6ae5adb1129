"""OpenSSF model signing of an unpacked bundle, by an EC key: the extra "sign"."""

from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from submissions import layout

INSTALL = 'pip install "flowertune[sign]"'


def check_key(key: Path) -> None:
    """Refuse what cannot sign, before anything is made that is to be signed.

    Raises
    ------
    UserError
        The extra is not installed, or there is no such file.
    """
    _package()
    if not key.is_file():
        raise UserError(f"There is no key {key}: give an EC key in PEM with --model-sign.")


def sign_folder(folder: Path, key: Path) -> None:
    """Write model.sig into an unpacked bundle; it signs every other file there.

    Parameters
    ----------
    folder
        The unpacked bundle.
    key
        A private EC key (P-256, P-384 or P-521) in PEM.

    Raises
    ------
    UserError
        The extra is not installed, or the key cannot be used.
    """
    signing = _package().signing
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_hashing()).sign(folder, folder / layout.MODEL_SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{key} cannot sign a model ({one_line(error, 120)}): give an EC key in PEM, as "
            "`openssl ecparam -name prime256v1 -genkey -noout` makes one."
        ) from None


def check_folder(folder: Path, key: Path) -> str | None:
    """Return why model.sig in an unpacked bundle does not fit a public key; None if it does.

    Raises
    ------
    UserError
        The extra is not installed.
    """
    verifying = _package().verifying
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing()).verify(folder, folder / layout.MODEL_SIGNATURE)
    except Exception as error:  # of several libraries, for content that somebody else wrote
        return one_line(error, 200)
    return None


def _hashing() -> Any:
    from model_signing.hashing import Config  # type: ignore[import-not-found]

    # All files count, those that git has a use for included.
    return Config().set_ignored_paths(paths=[layout.MODEL_SIGNATURE], ignore_git_paths=False)


def _package() -> Any:
    try:
        import model_signing  # type: ignore[import-not-found]
        import model_signing.signing  # type: ignore[import-not-found]
        import model_signing.verifying  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"OpenSSF model signing is not installed ({one_line(error, 80)}): {INSTALL}."
        ) from None
    return model_signing
