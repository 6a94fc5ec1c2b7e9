from __future__ import annotations

import asyncio

from gateway.demo.world import demo_settings
from gateway.identity.new_keys import KeyState, key_state
from gateway.operations.session import open_session


def test_the_keys_are_what_the_tour_says_they_are(installed):
    async def states():
        async with open_session(installed.settings) as session:
            now = session.clock.now()
            return {
                name: key_state(await session.listing.find_key(key.key_id), now)
                for name, key in installed.world.keys.items()
            }

    found = asyncio.run(states())
    assert found.pop("acme-revoked") is KeyState.REVOKED
    assert found.pop("acme-expired") is KeyState.EXPIRED
    assert set(found.values()) == {KeyState.LIVE}


def test_two_tenants_share_one_blob_on_disk(installed):
    root = installed.settings.cache_root
    links = [
        path for path in root.rglob("weights.onnx") if path.readlink().name == installed.world.shared_md5
    ]
    assert len(links) == 2
    assert (root / "shared-blobs" / installed.world.shared_md5).is_file()


def test_settings_come_from_the_demos_file_and_not_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHEGATE_STATE", "/elsewhere")
    monkeypatch.setenv("CACHEGATE_NO_SUCH_SETTING", "1")
    settings = demo_settings(tmp_path)
    assert settings.state == tmp_path / "state"
    assert settings.redis_url is None


def test_no_token_is_in_the_world_that_is_printed(installed):
    assert "cg_demo_" not in repr(installed.world)
