"""States that mixers share, and documents that are mixed apart."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.models.mixers import Placement, Recall, State
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.states import History, Rows, Several, blanked, right_aligned


def counted(*shape):
    return torch.arange(float(torch.Size(shape).numel())).view(shape)


def test_they_are_states_and_a_history_recalls():
    assert all(isinstance(each, State) for each in (Rows(counted(1)), History(counted(1, 2, 3)), Several()))
    assert isinstance(History(counted(1, 2, 3)), Recall)
    assert not isinstance(Rows(counted(1)), Recall)


def test_rows_are_chosen_joined_and_kept():
    state, other = Rows(counted(3, 2)), Rows(10 + counted(2, 2))
    state.join(other.select([1, 1]), [0])
    state.keep([3, 0])
    assert state.kept.tolist() == [[12.0, 13.0], [0.0, 1.0]]
    assert state.nbytes == 2 * 2 * 4


def test_a_choice_is_a_copy():
    state = Rows(counted(2, 2))
    state.select([0]).kept += 1
    assert state.kept[0].tolist() == [0.0, 1.0]


def test_histories_of_different_room_join():
    short, long = History(counted(1, 2, 1)), History(counted(2, 4, 1))
    short.join(long, [1])
    assert short.kept[..., 0].tolist() == [[0, 1, 0, 0], [4, 5, 6, 7]]
    long.join(History(counted(1, 2, 1)), [0])
    assert long.kept[2, :, 0].tolist() == [0, 1, 0, 0]


def test_a_history_takes_tokens_where_each_row_is():
    state = History(torch.zeros(2, 1, 1))
    x = 1 + counted(2, 2, 1)
    seen = state.extend(x, Placement(batch=2, tokens=2, device=x.device, past=(0, 1)))
    assert seen[..., 0].tolist() == [[1, 2, 0], [0, 3, 4]]


def test_several_do_everything_to_all():
    both = Several(Rows(counted(2, 1)), History(counted(2, 2, 1)))
    both.keep([1])
    both.join(Several(Rows(counted(1, 1)), History(counted(1, 2, 1))), [0])
    both.resize(3)
    assert both.parts[0].kept[:, 0].tolist() == [1, 0]
    assert both.parts[1].kept[..., 0].tolist() == [[2, 3, 0], [0, 1, 0]]
    assert both.nbytes == 2 * 4 + 6 * 4
    assert both.select([1]).parts[1].kept[..., 0].tolist() == [[0, 1, 0]]


def test_padding_moves_to_the_front_or_vanishes():
    x = 1 + counted(3, 3, 1)
    placement = Placement(batch=3, tokens=3, device=x.device, valid=(3, 1, 0))
    assert right_aligned(x, placement)[..., 0].tolist() == [[1, 2, 3], [0, 0, 4], [0, 0, 0]]
    assert blanked(x, placement)[..., 0].tolist() == [[1, 2, 3], [4, 0, 0], [0, 0, 0]]
    plain = Placement(batch=3, tokens=3, device=x.device)
    assert right_aligned(x, plain) is x
    assert blanked(x, plain) is x


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3))
def test_documents_are_mixed_as_if_alone(rows):
    """A mixer that adds up what came before, and sees that padding is none of it."""
    tokens = max(map(sum, rows))
    segments = torch.zeros(len(rows), tokens, dtype=torch.int64)
    for row, lengths in enumerate(rows):
        ends = torch.tensor(lengths).cumsum(0)
        segments[row] = torch.bucketize(torch.arange(tokens), ends, right=True)
    x = 1 + counted(len(rows), tokens, 1)

    def mix(given, placement):
        assert placement.segments is None
        assert placement.valid is not None
        for row, count in enumerate(placement.valid):
            assert (given[row, count:] == 0).all()
            assert (given[row, :count] > 0).all()
        return given.cumsum(1)

    found = apart(mix, x, segments)
    for row in range(len(rows)):
        for number in segments[row].unique():
            own = segments[row] == number
            assert torch.equal(found[row, own], x[row, own].cumsum(0))
