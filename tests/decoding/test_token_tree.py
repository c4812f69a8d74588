from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.token_tree import TokenTree

SEQUENCES = st.lists(st.lists(st.integers(3, 5), max_size=6), min_size=1, max_size=8)


@given(SEQUENCES, st.integers(1, 5))
def test_every_prefix_is_one_node_that_sees_its_own_path_alone(sequences: list[list[int]], stretch: int) -> None:
    tree = TokenTree(root_token=1)
    paths = [tree.add(row) for row in sequences]
    prefixes = {tuple(row[:length]) for row in sequences for length in range(len(row) + 1)}
    assert len(tree) == len(prefixes)
    assert [tree.add(row) for row in sequences] == paths and len(tree) == len(prefixes)
    tokens, depths, seen = [], [], []
    for start in range(0, len(tree), stretch):
        end = min(start + stretch, len(tree))
        nodes = tree.nodes(start, end)
        tokens += nodes.token_ids.tolist()
        depths += nodes.depths.tolist()
        columns = [*nodes.ancestors.tolist(), *range(start, end)]
        assert columns == sorted(set(columns)), "earlier nodes, each once"
        assert not nodes.ancestors.numel() or nodes.visible[:, : len(nodes.ancestors)].any(dim=0).all()
        seen += [{column for column, is_seen in zip(columns, row, strict=True) if is_seen} for row in nodes.visible]
    for row, path in zip(sequences, paths, strict=True):
        assert [tokens[node] for node in path] == [1, *row]
        assert [depths[node] for node in path] == list(range(len(row) + 1))
        for length, node in enumerate(path, 1):
            assert seen[node] == set(path[:length])


@given(SEQUENCES, st.integers(1, 3))
def test_with_a_context_prefixes_share_a_node_only_where_they_end_alike(
    sequences: list[list[int]], context: int
) -> None:
    tree, exact = TokenTree(1, context), TokenTree(1)
    paths = [tree.add(row) for row in sequences]
    assert [tree.add(row) for row in sequences] == paths
    assert paths[0] == exact.add(sequences[0]), "a sequence is not taken for itself"
    whole = tree.nodes(0, len(tree))
    tokens = whole.token_ids.tolist()
    met: dict[int, tuple[int, ...]] = {}
    for row, path in zip(sequences, paths, strict=True):
        assert [tokens[node] for node in path] == [1, *row]
        for length, node in enumerate(path):
            end = tuple(row[max(0, length - context) : length])
            assert met.setdefault(node, end) == end, "whoever shares a node ends in the same tokens"
    prefixes = {tuple(row[:length]) for row in sequences for length in range(len(row) + 1)}
    assert len(tree) <= len(prefixes)


def test_a_variant_costs_no_more_than_its_own_tokens_and_the_context() -> None:
    tree = TokenTree(1, context=3)
    first = list(range(10, 30))
    tree.add(first)
    tree.add([*first[:4], 99, *first[5:]])  # one replaced, then three that do not know yet
    assert len(tree) == 1 + len(first) + 1 + 2
    tree.add([*first[:4], *first[5:]])  # one left out
    assert len(tree) == 1 + len(first) + 1 + 2 + 2


def test_prefixes_of_quite_another_length_share_no_node_though_they_end_alike() -> None:
    tree = TokenTree(1, context=2)
    first = tree.add([10, 11])
    assert tree.add([20, 10, 11])[-1] == first[-1]
    assert tree.add([30, 31, 10, 11])[-1] != first[-1]


def test_a_sequence_that_repeats_its_tokens_is_not_taken_for_itself() -> None:
    assert TokenTree(1, context=2).add([10] * 5) == [0, 1, 2, 3, 4, 5]


def test_a_prefix_much_shorter_than_one_that_ends_alike_shares_no_node_with_it() -> None:
    tree = TokenTree(1, context=2)
    longer = tree.add([20, 21, 10, 11])
    assert tree.add([22, 10, 11])[-1] == longer[-1]
    assert tree.add([10, 11])[-1] not in longer
