from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.token_tree import TokenTree

SEQUENCES = st.lists(st.lists(st.integers(3, 5), max_size=6), min_size=1, max_size=8)


@given(SEQUENCES)
def test_every_prefix_is_one_node_that_sees_its_own_path_alone(sequences: list[list[int]]) -> None:
    tree = TokenTree.build(sequences, root_token=1)
    prefixes = {tuple(row[:length]) for row in sequences for length in range(len(row) + 1)}
    assert len(tree.token_ids) == len(prefixes)
    for row, path in zip(sequences, tree.paths, strict=True):
        assert tree.token_ids[list(path)].tolist() == [1, *row]
        assert tree.depths[list(path)].tolist() == list(range(len(row) + 1))
        for length, node in enumerate(path, 1):
            assert set(tree.visible[node].nonzero().flatten().tolist()) == set(path[:length])
