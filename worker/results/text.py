"""Text that any database can hold."""


def clean_text(text: str) -> str:
    """Return `text` without zero bytes and lone surrogates, which Postgres and UTF-8 refuse.

    >>> clean_text("a" + chr(0) + "b")
    'a\\ufffdb'
    """
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
