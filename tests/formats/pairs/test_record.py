"""Who a pair is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.pairs.record import key_of, to_bytes, to_text


@pytest.mark.parametrize(
    ("file_name", "root", "key"),
    [
        ("00000.tar/000000031.jpg", "", "00000/000000031"),
        ("000000031.jpg", "x/00000.tar", "00000/000000031"),
        ("000000031.jpg", "x/00000.tar/", "00000/000000031"),
        ("000000031.jpg", "x", "000000031"),
        ("b/c.tar/d/e.JPeG", "", "b/c/d/e"),
        ("a.tar/b.tar/c.png", "", "a/b.tar/c"),
        ("b.tar/c.png", "a.tar", "a/b.tar/c"),
        ("a.b.webp", "", "a.b"),
        ("a.tar.jpg", "", "a.tar"),
        ("a.jpg.png", "", "a.jpg"),
        ("a.heic", "", "a.heic"),
        ("a", "", "a"),
    ],
)
def test_keys(file_name: str, root: str, key: str) -> None:
    assert key_of(file_name, root) == key


@given(st.text("ab./x", min_size=1), st.sampled_from(["", "deep/", "d.x/"]))
def test_a_key_does_not_depend_on_whether_the_tar_is_the_root(member: str, folder: str) -> None:
    assert key_of(f"00.tar/{member}.jpg", "r") == key_of(f"{member}.jpg", f"r/{folder}00.tar")


def test_names_that_no_file_can_have_are_no_bytes() -> None:
    assert to_bytes("a\0b") is None
    assert to_bytes("\ud800") is None
    assert to_bytes("x" * 5000) is None
    assert to_bytes("\udcff\u00e9") == b"\xff\xc3\xa9"
    assert to_text(b"\xff\xc3\xa9") == "\udcff\u00e9"
