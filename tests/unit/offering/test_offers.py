"""What the http tests of the engine's face do not reach: how the links of a large page are made."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from gateway.engine.answers import AnsweredPackage, PackageFile
from gateway.model.names import FileHandle, PackageId
from gateway.offering.offers import LINKS_PER_TURN, Offers, _Places

COUNT = 3 * LINKS_PER_TURN + 1


def test_the_links_of_many_files_are_made_in_turns():
    files = tuple(
        PackageFile(handle=FileHandle(f"f{number}"), md5=None, download_url=f"https://x/{number}")
        for number in range(COUNT)
    )
    packages = tuple(AnsweredPackage(package=PackageId(one), files=files) for one in ("p", "q"))
    answer = SimpleNamespace(model="acme/cars/1", packages=packages)
    places = _Places(ours={(PackageId("p"), file.handle) for file in files})
    links = SimpleNamespace(url=lambda _key, _model, package, handle: f"ours:{package}/{handle}")
    offers = Offers(
        metadata=None,
        decisions=None,
        catalogue=None,
        origins=None,
        sealed=None,
        links=links,
        public_url="https://gw.example",
        is_relaying=False,
        minting=None,
        attestations=None,
    )
    turns = []

    async def scenario():
        making = asyncio.create_task(
            offers._urls(SimpleNamespace(key_id="key"), answer, places, is_wrapped=False)
        )
        while not making.done():
            turns.append(1)
            await asyncio.sleep(0)
        return await making

    urls = asyncio.run(scenario())
    assert len(turns) > 2 * COUNT // LINKS_PER_TURN
    assert urls == {
        **{("p", file.handle): f"ours:p/{file.handle}" for file in files},
        **{("q", file.handle): file.download_url for file in files},
    }
