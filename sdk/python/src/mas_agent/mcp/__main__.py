"""`python -m mas_agent.mcp` is `mas-agent mcp`."""

import sys

from ._command import main

main(["mcp", *sys.argv[1:]])
