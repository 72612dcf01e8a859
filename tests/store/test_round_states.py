from __future__ import annotations

from alc_backend.store.round_states import CHORES, NEXT, RUNNING, RoundState, Step


def test_the_steps_lead_from_created_to_open():
    state, passed = RoundState.CREATED, []
    while state != RoundState.OPEN:
        passed.append(state)
        state = NEXT[Step(state)]
    assert tuple(passed) == RUNNING


def test_every_step_either_leads_to_a_state_or_is_a_chore():
    assert NEXT.keys() | set(CHORES) == set(Step)
    assert not NEXT.keys() & set(CHORES)
