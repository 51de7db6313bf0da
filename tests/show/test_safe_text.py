"""Text from outside cannot leave its place in the page."""

from __future__ import annotations

import html
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.show.safe_text import markup, printable, script_json

TEXT = st.one_of(
    st.text(st.characters()),
    st.lists(st.sampled_from(["</script>", "<!--", "&amp;", '"', "'", "\udcff", "\ud800", "\n", "\u2028", "é"])).map("".join),
)


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_markup_shows_the_text_and_nothing_else(text: str) -> None:
    result = markup(text)
    result.encode("utf-8")
    assert not set(result) & set("<>\"'")
    assert html.unescape(result) == printable(text)
    assert result.isprintable()


@settings(deadline=None, max_examples=100)
@given(
    st.recursive(
        TEXT | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
    )
)
def test_script_json_round_trips_and_ends_no_element(value: object) -> None:
    result = script_json(value)
    result.encode("utf-8")
    assert "<" not in result
    assert json.loads(result) == json.loads(json.dumps(value))  # JSON joins surrogates that make a pair


def test_printable_keeps_letters_and_names_the_rest() -> None:
    assert printable("naïve 文件.jpg") == "naïve 文件.jpg"
    assert printable("a\n\udcff\ud800") == "a\\n\\xff\\ud800"
