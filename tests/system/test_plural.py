"""Counts in messages."""

from segdist.system.plural import count_noun


def test_only_one_is_singular() -> None:
    assert [count_noun(count, "node") for count in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [count_noun(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]
