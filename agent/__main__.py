"""`python -m agent` is the command `edge-agent`."""

from agent.cli.main import main

raise SystemExit(main())
