"""What editors and people are told of the file is what the file may hold."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from agent.config.document import parse
from agent.config.json_schema import schema
from agent.config.reference import page
from agent.plugins import installed

ROOT = Path(__file__).parents[2]
WHOLE = schema(installed())
JUDGE = Draft7Validator(WHOLE)


def data_of(path):
    """The file as an editor's schema sees it: numbers in hex are numbers."""
    return json.loads(json.dumps(parse(path.read_text(encoding="utf-8")).data, default=str))


def test_the_page_is_what_the_code_says():
    """docs/configuration.md: `edge-agent config reference` writes it."""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == page(installed())


def test_the_schema_is_what_the_code_says():
    """configs/edge-agent.schema.json: `edge-agent config schema` writes it."""
    shipped = (ROOT / "configs" / "edge-agent.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == WHOLE
    Draft7Validator.check_schema(WHOLE)


def test_every_setting_says_what_it_is():
    """The string below a field is its description, for the editor and for the page."""
    silent = [
        f"{section}.{name}"
        for section, part in {"": WHOLE, **WHOLE["definitions"]}.items()
        for name, setting in part.get("properties", {}).items()
        if not setting.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_an_editor_accepts_what_we_accept(path):
    """No example has a red line in an editor."""
    assert [f"{list(e.path)}: {e.message}" for e in JUDGE.iter_errors(data_of(path))] == []


@pytest.mark.parametrize("name", ["typo", "missing", "bare_number", "values"])
def test_an_editor_marks_what_we_refuse(name):
    """Misspelt and missing settings, numbers without a unit, words for numbers."""
    path = ROOT / "tests" / "config" / "bad" / f"{name}.yaml"
    assert not JUDGE.is_valid(data_of(path))


def test_the_full_example_shows_every_setting():
    """configs/full.yaml has each setting of each section somewhere."""
    definitions, seen = WHOLE["definitions"], set()

    def walk(part, data):
        for choice in part.get("anyOf", []):
            if Draft7Validator(choice | {"definitions": definitions}).is_valid(data):
                walk(choice, data)
        if "$ref" in part:
            name = part["$ref"].rsplit("/", 1)[1]
            part = definitions[name]
            seen.update(f"{name}.{key}" for key in data)
        if isinstance(data, dict):
            named = next(iter(part.get("patternProperties", {}).values()), {})
            other = part.get("additionalProperties") or named
            for key, value in data.items():
                below = part.get("properties", {}).get(key, other)
                walk(below if isinstance(below, dict) else {}, value)

    data = data_of(ROOT / "configs" / "full.yaml")
    walk(WHOLE, data)
    wanted = {
        f"{name}.{key}"
        for name, part in definitions.items()
        if name != "ProfiledDevice"
        for key in part.get("properties", {})
    }
    assert sorted(wanted - seen) == []
    assert sorted(set(WHOLE["properties"]) - set(data)) == []
