"""A Markdown extension: the line `[settings]` becomes the tables of the sections of `params.yaml`."""

import json
import re
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

from fer_lib.param_sections import Section
from fer_lib.params import Params
from fer_lib.params_file import read_params_file
from fer_lib.paths import PARAMS_FILE

LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


class SettingsTables(Preprocessor):
    """Writes a table for each section: setting, what it may be, its value, and the comment beside it."""

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines of a page with its tables."""
        return [new for line in lines for new in (build_tables() if line == "[settings]" else [line])]


def build_tables() -> list[str]:
    """Return the lines of all sections that hold single settings; of the others their names."""
    values, text, lines = read_params_file(), PARAMS_FILE.read_text(), []
    for name, field in Params.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            continue  # a mapping of names that each study chooses
        schema = section.model_json_schema()
        block = re.search(rf"(?m)^{name}:.*\n(?:(?:  .*)?\n)*", text)
        comments = dict(re.findall(r"(?m)^  (\w+):.*?\s# (.+)$", block.group())) if block else {}
        lines += ["", f"## `{name}`", "", section.__doc__.splitlines()[0], ""]
        lines += ["| setting | type | value | |", "|---|---|---|---|"]
        for key, entry in schema["properties"].items():
            value = describe_value(values[name].get(key))
            row = (f"`{key}`", describe_type(entry, schema), value, comments.get(key, ""))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return lines


def describe_value(value: Any) -> str:
    """Return a value as YAML has it; of a mapping of mappings nothing, since it fills a page."""
    if isinstance(value, dict) and any(isinstance(one, dict) for one in value.values()):
        return "see the file"
    return f"`{json.dumps(value)}`"


def describe_type(entry: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return in words what a JSON schema allows."""
    if "$ref" in entry:
        shares = schema["$defs"][entry["$ref"].rpartition("/")[2]]["properties"]
        return f"mapping of {', '.join(shares)}"
    if "anyOf" in entry:
        return " or ".join(describe_type(one, schema) for one in entry["anyOf"])
    if "enum" in entry:
        return " or ".join(f"`{one}`" for one in entry["enum"])
    limits = [f"{sign} {entry[key]:g}" for key, sign in LIMITS.items() if key in entry]
    name = {"array": "list", "object": "mapping", "string": "text"}.get(entry["type"], entry["type"])
    return " ".join([name, ", ".join(limits)]).strip()


class SettingsExtension(Extension):
    """Registers `SettingsTables` before the tables of Markdown are read."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Take part in reading a page."""
        md.preprocessors.register(SettingsTables(md), "settings", 28)


def makeExtension(**_: Any) -> SettingsExtension:  # noqa: N802
    """Return the extension, as Markdown asks for it."""
    return SettingsExtension()
