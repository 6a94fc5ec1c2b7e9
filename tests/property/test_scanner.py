"""The law of the scanner: however a cache changes, its result becomes that of a full scan."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.model.presence import NothingSeen
from gateway.resource.manifests import Manifests
from gateway.resource.scan import Looking, scan
from gateway.resource.scanner import Scanner

MODELS = st.sampled_from(["a/1", "a/2", "b", "zoo/1"])
PACKAGES = st.sampled_from(["p1", "P1", "p2"])
LONG_AFTER = 4e9  # every change time is old enough to be believed


class ChangingCache(RuleBasedStateMachine):
    """An engine, an operator and a vandal at work on one cache."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        write_sample_cache(self.root, [])
        self.scanner = Scanner(self.root, manifests=Manifests(self), seen=NothingSeen())
        self.known = {}

    def now(self):
        return LONG_AFTER

    def teardown(self):
        shutil.rmtree(self.root)

    def place(self, model, package=""):
        return self.root / "models-cache" / sample_directory(model) / package

    @rule(model=MODELS, package=PACKAGES)
    def load(self, model, package):
        write_sample_cache(self.root, [SampleModel(model_id=model, packages={package: {"f": b"x"}})])

    @rule(model=MODELS, package=PACKAGES)
    def remove_package(self, model, package):
        shutil.rmtree(self.place(model, package), ignore_errors=True)

    @rule(model=MODELS)
    def remove_model(self, model):
        shutil.rmtree(self.place(model), ignore_errors=True)

    @rule(model=MODELS, package=PACKAGES)
    def unfinish(self, model, package):
        (self.place(model, package) / "model_config.json").unlink(missing_ok=True)

    @rule(model=MODELS, package=PACKAGES, text=st.sampled_from(["{", "{}", '{"model_id": "b"}']))
    def spoil(self, model, package, text):
        if self.place(model, package).is_dir():
            (self.place(model, package) / "model_config.json").write_text(text)

    @rule(one=MODELS, other=MODELS)
    def move(self, one, other):
        if self.place(one).is_dir() and not self.place(other).exists():
            self.place(one).rename(self.place(other))

    @rule(model=MODELS)
    def learn(self, model):
        self.known = {**self.known, sample_directory(model): model}

    @rule()
    def forget(self):
        self.known = {}

    def full_scan(self):
        looking = Looking(manifests=Manifests(self, reads_all_here=True), now=LONG_AFTER)
        return scan(self.root, self.known, looking)

    @invariant()
    def the_look_is_the_scan(self):
        # Every directory is opened again within a look here: what only the rarer turn finds, a manifest
        # that is rewritten in place in a package that was fine, is found as well.
        assert self.scanner.look(self.known, LONG_AFTER) == self.full_scan()


TestChangingCache = ChangingCache.TestCase
TestChangingCache.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
