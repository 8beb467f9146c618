"""``python -m agent.cli.aside COMMAND ...``: the command line, giving way to the agent."""

from agent.cli.main import main
from agent.inference.priority import give_way

if __name__ == "__main__":
    give_way()
    raise SystemExit(main())
