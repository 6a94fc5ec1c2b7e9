from __future__ import annotations

import pytest

from gateway.directory.edits.effect import verify_not_from_folder
from gateway.model.errors import Conflict


def test_a_fact_of_the_folder_is_refused_with_the_file_to_edit():
    with pytest.raises(Conflict, match=r"tenants/acme\.toml"):
        verify_not_from_folder("the rule for a", "policies:acme", force=False)


@pytest.mark.parametrize(("source", "force"), [("policies:acme", True), ("cli", False), ("cli", True)])
def test_a_fact_of_a_command_or_a_forced_change_passes(source, force):
    verify_not_from_folder("the rule for a", source, force=force)
