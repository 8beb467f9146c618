"""Texts as codes."""

from agent.core import texts as module
from agent.core.texts import TEXTS, Texts


class Kept(dict):
    """A state store of one namespace."""

    def items(self, ns=""):
        return super().items() if ns == "" else dict(self)

    def get(self, ns, key):
        return super().get(key)

    def set(self, ns, key, value):
        if value is None:
            self.pop(key)
        else:
            self[key] = value


def test_a_text_keeps_its_code_over_a_restart():
    """Codes are per tag, rise from 1, and mean the same after a restart."""
    kept = Kept()
    texts = Texts(kept)
    assert [texts.code("d/lot", t) for t in ("A", "B", "A")] == [1.0, 2.0, 1.0]
    assert texts.code("d/recipe", "A") == 1.0
    again = Texts(kept)
    assert (again.code("d/lot", "B"), again.code("d/lot", "C")) == (2.0, 3.0)
    assert [again.text("d/lot", c) for c in (1.0, 2.0, 3.0)] == ["A", "B", "C"]


def test_the_dictionary_is_bounded_and_codes_are_never_used_again():
    """The text not seen for longest goes; its code stays without a text for ever."""
    kept = Kept()
    texts = Texts(kept)
    texts.code("d/lot", "always")
    for i in range(TEXTS + 50):
        texts.code("d/lot", f"lot {i}")
        texts.code("d/lot", "always")
    assert len(kept) == TEXTS
    assert texts.text("d/lot", 2.0) is None
    assert texts.text("d/lot", 1.0) == "always"
    assert Texts(kept).code("d/lot", "lot 0") == TEXTS + 52


def test_what_is_no_code_has_no_text():
    """NaN, zero, infinity and a tag without texts give none; a text has an end."""
    texts = Texts()
    code = texts.code("d/lot", "x" * 5000)
    assert len(texts.text("d/lot", code)) == module.LONGEST
    found = [texts.text("d/lot", c) for c in (float("nan"), 0.0, -1.0, float("inf"), 7.0)]
    assert found == [None] * 5
    assert texts.text("d/other", 1.0) is None


def test_a_store_that_could_not_be_read_loses_no_meaning():
    """Codes given out meanwhile are far above those that the store may hold."""
    kept = Kept({"d/lot#1": "A"})
    blind = Texts(None, first=2**40)
    assert blind.code("d/lot", "B") == 2**40
    late = Texts(Kept(), first=2**40)
    late._state = kept
    assert late.code("d/lot", "B") == 2**40
    assert late.text("d/lot", 1.0) == "A"
