from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.directory.documents.parse import load_tenant_documents
from gateway.directory.documents.tables import MAX_DOCUMENT_BYTES
from gateway.model.errors import Misconfigured
from gateway.model.toml_tables import DocumentProblems
from gateway.model.trusted_files import Distrusted

EXAMPLE = Path(__file__).parents[4] / "policies" / "tenants" / "example.toml"

ACME = """\
[tenant]
id = "acme"              # the file is named <id>.toml
name = "Acme Corp"
suspended = true
degraded_seconds = 60
image_hosts = ["images.example.com", "http://cdn.example.com"]
allows = ["external-request", "cache-read"]

[models]
own = ["acme/*"]
public = [
    "acme/demo/*",
]
private = ["acme/demo/2"]

[models.aliases]
"acme/latest" = "acme/cars/1"

[models.groups]
vision = ["acme/cars/*"]

[[grants]]
models = ["globex/shared/1"]
actions = ["read", "infer"]

[[grants]]
groups = ["text"]
packages = ["p1"]
actions = ["discover"]
"""


def load(folder: Path, **texts: str | bytes):
    for name, text in texts.items():
        raw_text = text if isinstance(text, bytes) else text.encode()
        (folder / f"{name}.toml").write_bytes(raw_text)
    return load_tenant_documents(folder)


def test_a_document_says_what_is_written_in_it(tmp_path):
    (acme,) = load(tmp_path, acme=ACME)
    assert (acme.tenant_id, acme.name, acme.is_suspended) == ("acme", "Acme Corp", True)
    assert (acme.own, acme.public, acme.private) == (("acme/*",), ("acme/demo/*",), ("acme/demo/2",))
    assert acme.degraded_seconds == 60.0
    assert acme.image_hosts == ("images.example.com", "http://cdn.example.com")
    assert acme.allows == ("cache-read", "external-request")
    assert acme.aliases == {"acme/latest": "acme/cars/1"}
    assert acme.groups == {"vision": ("acme/cars/*",)}
    first, second = acme.grants
    assert (first.models, first.actions, first.packages) == (("globex/shared/1",), {"read", "infer"}, ())
    assert (second.groups, second.actions, second.packages) == (("text",), {"discover"}, ("p1",))
    assert {grant.source for grant in acme.grants} == {acme.source} == {"policies:acme"}


def test_a_grants_id_follows_from_what_it_says_and_not_from_where_it_stands(tmp_path):
    (acme,) = load(tmp_path, acme=ACME)
    moved = ACME.replace('models = ["globex/shared/1"]\nactions = ["read", "infer"]', "MARK")
    moved = moved.replace("[[grants]]\nMARK\n", "")
    moved += '[[grants]]\nactions = ["infer", "read"]\nmodels = ["globex/shared/1"]\n'
    (again,) = load(tmp_path, acme=moved)
    assert [grant.grant_id for grant in again.grants] == [grant.grant_id for grant in reversed(acme.grants)]
    assert len({grant.grant_id for grant in acme.grants}) == 2


def test_a_tenant_alone_is_a_whole_document(tmp_path):
    (acme,) = load(tmp_path, acme='[tenant]\nid = "acme"\n')
    assert (acme.name, acme.is_suspended, acme.grants) == ("acme", False, ())


def test_files_without_content_are_skipped_and_documents_come_sorted(tmp_path):
    found = load(
        tmp_path,
        zeta='[tenant]\nid = "zeta"\n',
        alpha='[tenant]\nid = "alpha"\n',
        empty="",
        words="# nothing but words\n",
        example=EXAMPLE.read_bytes(),
    )
    assert [document.tenant_id for document in found] == ["alpha", "zeta"]


def test_the_shipped_example_is_a_valid_document_once_its_comments_are_lifted(tmp_path):
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    lifted = [line.removeprefix("# ") for line in lines if " = " in line or line.startswith("# [")]
    (acme,) = load(tmp_path, acme="\n".join(lifted))
    assert acme.own
    assert acme.grants
    assert acme.aliases
    assert acme.groups


def test_a_missing_folder_is_not_taken_for_an_empty_one(tmp_path):
    with pytest.raises(Misconfigured):
        load_tenant_documents(tmp_path / "mistyped")
    assert load_tenant_documents(tmp_path) == ()


T = '[tenant]\nid = "acme"\n'
G = f"{T}[[grants]]\n"


@pytest.mark.parametrize(
    ("text", "line", "about"),
    [
        ("[tenant", 1, "not TOML"),
        ('[tenant]\nid = "acme\n', 2, "not TOML"),
        ('[tenant]\nid = "acme"\nid = "acme"\n', 3, "not TOML"),
        ('[tenant]\nid = """acme', 2, "not TOML"),
        (b'[tenant]\nid = "acme"\n# \xff\n', 3, "UTF-8"),
        ('[tennant]\nid = "acme"\n', 1, "tennant"),
        ('[tenant]\nid = "other"\n', 2, "acme.toml"),
        ("[tenant]\nid = 7\n", 2, "string"),
        ('[tenant]\nname = "Acme"\n', 1, "id"),
        ('[models]\nown = ["acme/*"]\n', 1, "id"),
        ('[tenant]\nid = "-acme"\n', 2, "tenant id"),
        ('[tenant]\nid = "acme"\nsuspended = "no"\n', 3, "true or false"),
        ('[tenant]\nid = "acme"\ndegraded_seconds = "60s"\n', 3, "from 0 to 3600"),
        ('[tenant]\nid = "acme"\ndegraded_seconds = 3601\n', 3, "from 0 to 3600"),
        ('[tenant]\nid = "acme"\n\ndegraded_seconds = -1\n', 4, "from 0 to 3600"),
        ('[tenant]\nid = "acme"\ndegraded_seconds = nan\n', 3, "from 0 to 3600"),
        ('[tenant]\nid = "acme"\ndegraded_seconds = true\n', 3, "from 0 to 3600"),
        ('[tenant]\nid = "acme"\ndegraded = 60\n', 3, "degraded_seconds"),
        ('[tenant]\nid = "acme"\nimage_hosts = "a.example"\n', 3, "image_hosts"),
        ('[tenant]\nid = "acme"\nallows = ["infer"]\n', 3, "is not an action of workflows"),
        ('[tenant]\nid = "acme"\nallows = ["custom_python"]\n', 3, "is not an action of workflows"),
        ('[tenant]\nid = "acme"\nallows = "custom-python"\n', 3, "allows"),
        ('[tenant]\nid = "acme"\nimage_hosts = ["a.example", "*"]\n', 3, "not a host of images"),
        ('[tenant]\nid = "acme"\nimage_hosts = ["a.example", "a.example"]\n', 3, "expected it once"),
        (f'[tenant]\nid = "acme"\nimage_hosts = {[f"h{n}" for n in range(65)]}\n', 3, "at most 64"),
        ('[tenant]\nid = "acme"\nname = ["Acme"]\n', 3, "string"),
        ('[tenant]\nid = "acme"\nkey = "x"\n', 3, "unknown key"),
        ('tenant = "acme"\n', 1, "table"),
        (f"tenant = {'[' * 5000}\n", 1, "too deep"),
        (f"{T}[model]\n", 3, "unknown key 'model'"),
        (f"{T}[models.owners]\nx = 1\n", 3, "unknown key 'owners'"),
        (f"{T}[models]\n\n[models.aliases]\n'acme/a' = 3\n", 6, "model id"),
        (f'{T}[models]\naliases = {{ "acme/a" = 3 }}\n', 4, "model id"),
        (f'{T}[models]\nowns = ["acme/*"]\n', 4, "unknown key 'owns'"),
        (f'{T}[models]\nown = "acme/*"\n', 4, "list"),
        (f"{T}[models]\nown = [7]\n", 4, "string"),
        (f'{T}[models]\nown = ["*"]\n', 4, "'*'"),
        (f'{T}[models]\nown = [\n  "acme/ok",\n  "acme/*/x",\n]\n', 6, "not a pattern"),
        (f'{T}[models]\nown = [\n  "acme/ok",\n  "acme/../x",\n]\n', 6, "dot segment"),
        (f'{T}[models]\nown = ["acme/x",\n"acme/x"]\n', 4, "again"),
        (f'{T}[models]\npublic = ["acme/x"]\nprivate = ["acme/x"]\n', 5, "one of both"),
        (f'{T}[models.aliases]\n"acme/a" = 3\n', 4, "model id"),
        (f'{T}[models.aliases]\n"acme/a" = "acme/*"\n', 4, "model id"),
        (f'{T}[models.aliases]\n"acme/a" = "acme/a"\n', 4, "alias itself"),
        (f'{T}[models.aliases]\n"acme/a" = "acme/b"\n"acme/b" = "acme/c"\n', 4, "alias itself"),
        (f'{T}[models]\naliases = ["acme/a"]\n', 4, "table"),
        (f'{T}[models.groups]\n"two words" = ["acme/x"]\n', 4, "group name"),
        (f'{T}[models.groups]\nvision = "acme/x"\n', 4, "list"),
        (f"{T}[grants]\nactions = []\n", 3, "[[grants]]"),
        (f'{G}models = ["x"]\n', 3, "no actions"),
        (f'{G}models = ["x"]\nactions = []\n', 5, "no actions"),
        (f'{G}models = ["x"]\nactions = ["write"]\n', 5, "discover, read, infer"),
        (f'{G}models = ["x"]\nactions = ["identify"]\n', 5, "discover, read, infer"),
        (f'{G}actions = ["read"]\n', 3, "grant of nothing"),
        (f'{G}models = ["x"]\nactions = ["read"]\nuntil = 3\n', 6, "unknown key"),
        (f'{G}models = ["x"]\nactions = ["read"]\npackages = ["p-1"]\n', 6, "package id"),
        (
            f'{G}models = ["x"]\nactions = ["read"]\n\n[[grants]]\nmodels = ["*"]\nactions = ["read"]\n',
            8,
            "'*'",
        ),
        (
            f'{G}models = ["x"]\nactions = ["read"]\n[[grants]]\nmodels = ["x"]\nactions = ["read"]\n',
            6,
            "again",
        ),
    ],
)
def test_a_complaint_names_file_and_line(tmp_path, text, line, about):
    with pytest.raises(DocumentProblems) as refused:
        load(tmp_path, acme=text)
    found = [(problem.where, problem.why) for problem in refused.value.problems]
    assert any(where == f"{tmp_path}/acme.toml:{line}" and about in why for where, why in found), found


@pytest.mark.parametrize(
    ("acme", "globex", "about"),
    [
        ('[models]\nown = ["acme/*"]', '[models]\nown = ["acme/*"]', "another owner"),
        ('[models]\nown = ["acme/*"]', '[models]\npublic = ["acme/*"]', "is spoken of"),
        ('[models]\nown = ["acme/*"]', '[models.groups]\nmine = ["acme/*"]', "is spoken of"),
        ('[models.aliases]\n"x/a" = "x/b"', '[models.aliases]\n"x/a" = "x/c"', "expected it once"),
        ('[models.aliases]\n"x/a" = "x/b"', '[models.aliases]\n"x/z" = "x/a"', "an alias itself"),
    ],
)
def test_documents_that_contradict_each_other_are_refused_with_both_places(tmp_path, acme, globex, about):
    with pytest.raises(DocumentProblems) as refused:
        load(
            tmp_path,
            acme=f'[tenant]\nid = "acme"\n{acme}\n',
            globex=f'[tenant]\nid = "globex"\n{globex}\n',
        )
    (problem,) = refused.value.problems
    assert problem.where == f"{tmp_path}/globex.toml:4"
    assert about in problem.why


def test_all_problems_of_a_folder_come_at_once(tmp_path):
    with pytest.raises(DocumentProblems) as refused:
        load(
            tmp_path,
            acme='[tenant]\nid = "acme"\nsuspended = 1\n[models]\nown = ["*", "a//b"]\n',
            broken="[",
            globex='[tenant]\nid = "initech"\n',
        )
    places = [Path(problem.where).name for problem in refused.value.problems]
    assert places == ["acme.toml:5", "acme.toml:5", "acme.toml:3", "broken.toml:1", "globex.toml:2"]
    assert all(Path(problem.where).name in str(refused.value) for problem in refused.value.problems)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "acme.toml").mkdir()
    with pytest.raises(DocumentProblems, match=r"acme\.toml"):
        load_tenant_documents(tmp_path)


@pytest.mark.parametrize("text", ["tenant = 3", "[tenant]\nid = 3"])
def test_a_tenant_of_another_kind_is_one_complaint(tmp_path, text):
    with pytest.raises(DocumentProblems) as refused:
        load(tmp_path, acme=text)
    (problem,) = refused.value.problems
    assert "expected" in problem.why


def test_a_document_that_others_could_have_written_is_a_complaint_or_told(tmp_path):
    good = load(tmp_path, acme=ACME)
    (tmp_path / "acme.toml").chmod(0o666)
    with pytest.raises(DocumentProblems) as refused:
        load_tenant_documents(tmp_path)
    assert [one.where for one in refused.value.problems] == [f"{tmp_path / 'acme.toml'}:1"]
    told = []
    assert load_tenant_documents(tmp_path, on_distrust=told.append) == good
    assert [one.culprit for one in told] == [str(tmp_path / "acme.toml")]


def test_a_folder_that_others_may_write_is_refused_although_it_holds_no_document(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(Distrusted):
        load_tenant_documents(tmp_path)


def test_a_document_of_any_size_is_read_up_to_a_bound_only(tmp_path):
    load(tmp_path, acme=ACME)
    os.truncate(tmp_path / "acme.toml", MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(DocumentProblems, match="too large"):
        load_tenant_documents(tmp_path)


class TestTimes:
    def test_grants_and_publications_may_begin_and_end(self, tmp_path):
        (tmp_path / "acme.toml").write_text("""
[tenant]
id = "acme"
[models]
own = ["acme/*"]
[[models.published]]
models = ["acme/x", "acme/y/*"]
not_before = 2030-01-01T00:00:00Z
expires = "2030-01-01T02:00:00+01:00"
[[grants]]
models = ["globex/x"]
actions = ["read"]
expires = 2030-01-01T00:00:00Z
""")
        [document] = load_tenant_documents(tmp_path)
        rules = {rule.pattern: rule for rule in document.rules("acme", document.source)}
        begin = 1893456000.0
        for pattern in ("acme/x", "acme/y/*"):
            rule = rules[pattern]
            assert (rule.visibility, rule.not_before, rule.expires_at) == ("public", begin, begin + 3600)
        assert [grant.expires_at for grant in document.grants] == [begin]

    def test_grants_that_differ_in_their_times_are_two(self, tmp_path):
        grant = '[[grants]]\nmodels = ["globex/x"]\nactions = ["read"]\n'
        text = f'[tenant]\nid = "acme"\n{grant}{grant}expires = 2030-01-01T00:00:00Z\n'
        (tmp_path / "acme.toml").write_text(text)
        [document] = load_tenant_documents(tmp_path)
        assert len({one.grant_id for one in document.grants}) == 2

    @pytest.mark.parametrize(
        ("said", "line"),
        [
            ("expires = 2030-01-01T00:00:00", 8),  # another time on each machine
            ("expires = 2030-01-01", 8),
            ('expires = "tomorrow"', 8),
            ("expires = 5", 8),
            ("expires = true", 8),
            ("not_before = 2031-01-01T00:00:00Z\nexpires = 2030-01-01T00:00:00Z", 9),
            ("until = 2030-01-01T00:00:00Z", 8),
        ],
    )
    def test_a_time_that_is_none_or_no_period_is_a_problem_on_its_line(self, tmp_path, said, line):
        text = f'[tenant]\nid = "acme"\n[[grants]]\nmodels = ["globex/x"]\nactions = ["read"]\n{said}\n'
        (tmp_path / "acme.toml").write_text(f"\n\n{text}")
        with pytest.raises(DocumentProblems) as problems:
            load_tenant_documents(tmp_path)
        [problem] = problems.value.problems
        assert problem.where.endswith(f"acme.toml:{line}")

    @pytest.mark.parametrize("key", ["public", "private"])
    def test_a_pattern_is_published_in_one_way(self, tmp_path, key):
        said = f'[models]\n{key} = ["acme/x"]\n[[models.published]]\nmodels = ["acme/x"]\n'
        text = f'[tenant]\nid = "acme"\n{said}'
        (tmp_path / "acme.toml").write_text(text)
        with pytest.raises(DocumentProblems, match="expected one of both"):
            load_tenant_documents(tmp_path)
