"""`python -m gexinfer` is `gexinfer`."""

from gexinfer.cli import app

app(prog_name="gexinfer")
