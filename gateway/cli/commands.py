"""Imports all commands and registers each with the application."""

from __future__ import annotations

from gateway.cli import (
    bindings,
    cache,
    connect,
    demo,
    directory,
    doctor,
    explain,
    grants,
    init,
    keys,
    models,
    policy,
    serve,
    tenants,
    tokens,
)
from gateway.cli.application import app
from gateway.cli.audit import group as audit

app.command("init")(init.init)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(tenants.commands, name="tenants")
app.add_typer(keys.commands, name="keys")
app.add_typer(bindings.commands, name="bindings")
app.add_typer(tokens.commands, name="tokens")
app.add_typer(models.commands, name="models")
app.add_typer(grants.commands, name="grants")
app.add_typer(policy.commands, name="policy")
app.add_typer(directory.commands, name="directory")
app.command("explain")(explain.explain)
app.add_typer(audit.commands, name="audit")
app.add_typer(cache.commands, name="cache")
app.command("connect")(connect.connect)
app.command("doctor")(doctor.doctor)
