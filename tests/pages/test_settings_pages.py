"""The settings reference has every key of every command, with its meaning."""

from pathlib import Path

from medseg.config.schema import CONF, arguments
from medseg.config.settings import KEYS_OF

LAYOUT = "dataset.layout"
"""What a data set's file makes of the settings beside it, which nobody gives."""


def test_the_reference_of_settings_is_complete(monkeypatch):
    """Keys of commands, arguments of objects and options of groups; in one test, since the pages take seconds."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import settings_pages

    pages = settings_pages.pages()
    everywhere = "\n".join(pages.values())
    for command, keys in KEYS_OF.items():
        page = pages["train" if command == "inspect" else command]
        for path, key in keys.items():
            if path not in ("command", LAYOUT):
                text = everywhere if f"]({path.partition('.')[0]}.md)" in page else page
                assert f"### `{path}` {{" in text, (command, path)
                assert key.meaning[1:] in everywhere
    objects = {target: keys for target, keys in arguments().items() if not target.startswith("medseg.io.layouts.")}
    meanings = {(target, name): key.meaning for target, keys in objects.items() for name, key in keys.items()}
    assert not {argument for argument, meaning in meanings.items() if meaning[1:] not in everywhere}
    files = [path for path in CONF.glob("*/*.yaml") if path.stem not in ("saved", "default")]
    options = {f"{path.parent.name}={path.stem}" for path in files if path.parent.name not in ("common", "weights")}
    assert not {option for option in options if option not in everywhere}
    for name, text in pages.items():
        addresses = [part.partition(" }")[0] for part in text.split("{ #")[1:]]
        assert len(set(addresses)) == len(addresses), name
