"""The folder that holds all secrets is private, or nothing starts."""

from __future__ import annotations

import pytest

from gateway.model.errors import Misconfigured
from gateway.office.state_folder import make_private, verify_private


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o707, 0o2770, 0o701])
def test_a_folder_that_others_may_enter_is_refused_with_the_remedy(tmp_path, mode):
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    for refuse in (verify_private, make_private):
        with pytest.raises(Misconfigured, match=f"chmod 700 {state}"):
            refuse(state)


def test_a_folder_that_is_made_is_private_and_one_that_is_missing_is_not_made_by_looking(tmp_path):
    verify_private(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    make_private(tmp_path / "state")
    verify_private(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    for refuse in (verify_private, make_private):
        with pytest.raises(Misconfigured):
            refuse(tmp_path / "state")
