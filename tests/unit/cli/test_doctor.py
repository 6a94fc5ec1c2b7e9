from __future__ import annotations


def test_an_installation_in_order_has_no_failure_and_exits_zero(command_json):
    status, found = command_json("doctor")
    assert (status, found["ok"]) == (0, True)
    assert {"ok", "warning"} >= {one["status"] for one in found["checks"]}
    names = [one["name"] for one in found["checks"]]
    assert len(names) == len(set(names))
    assert {"state folder", "pepper", "signing key", "redis", "policy", "cache", "audit chain"} <= set(names)


def test_every_finding_that_is_not_ok_says_what_to_do(command_json):
    _, found = command_json("doctor")
    assert all(one["advice"] for one in found["checks"] if one["status"] != "ok")


def test_one_failure_is_exit_status_one_and_hides_no_other_row(command_json, installed):
    complete = [one["name"] for one in command_json("doctor")[1]["checks"]]
    pepper = installed.settings.pepper_folder / "p1.pepper"
    pepper.chmod(0o644)
    try:
        status, found = command_json("doctor")
    finally:
        pepper.chmod(0o600)
    assert (status, found["ok"]) == (1, False)
    assert [one["name"] for one in found["checks"]] == complete


def test_settings_that_do_not_load_are_exit_status_two(command, monkeypatch):
    monkeypatch.setenv("CACHEGATE_AUDIT_DURABILITY", "sometimes")
    status, _, err = command("doctor")
    assert status == 2
    assert "CACHEGATE_AUDIT_DURABILITY" in err


def test_looking_changes_nothing(command, installed):
    def files():
        folder = installed.settings.state
        kept = (path for path in folder.rglob("*") if path.is_file() and "valkey" not in path.parts)
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before = files()
    assert command("doctor")[0] == 0
    assert files() == before
