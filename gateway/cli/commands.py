"""All commands, gathered: importing this module registers each with the application in `main.py`."""

from __future__ import annotations

from gateway.cli import connect, demo, doctor, grants, init, policy, serve, tenants
from gateway.cli.audit import commands
from gateway.cli.cache import commands
from gateway.cli.directory import commands
from gateway.cli.explain import commands
from gateway.cli.keys import commands
from gateway.cli.main import app
from gateway.cli.models import commands

app.command("init")(init.init)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(tenants.commands, name="tenants")
app.add_typer(commands.commands, name="keys")
app.add_typer(commands.commands, name="models")
app.add_typer(grants.commands, name="grants")
app.add_typer(policy.commands, name="policy")
app.add_typer(commands.commands, name="directory")
app.command("explain")(commands.explain)
app.add_typer(commands.commands, name="audit")
app.add_typer(commands.commands, name="cache")
app.command("connect")(connect.connect)
app.command("doctor")(doctor.doctor)
