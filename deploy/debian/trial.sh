#!/bin/sh
# The probation of a new version: `trial start` before each start, `trial ready` when systemd has
# seen READY. After three starts without it the version before comes back.
# Runs as root outside the sandbox; its state belongs to root, so that the agent cannot steer it.
home=/opt/edge-agent
state=/var/lib/edge-agent-update
starts_allowed=3

[ -s "$state/previous" ] || exit 0
if [ "$1" = ready ]; then
  [ -e /run/edge-agent/rescue ] && exit 0   # only the page runs: the version has shown nothing yet
  rm -f "$state/previous" "$state/starts"
  exit 0
fi
starts=$(cat "$state/starts" 2>/dev/null || echo 0)
if [ "$starts" -lt "$starts_allowed" ]; then
  echo $((starts + 1)) >"$state/starts"
  exit 0
fi
previous=$(cat "$state/previous")
failed=$(readlink "$home/current")
rm -f "$state/previous" "$state/starts"
if ! "$home/$previous/venv/bin/python" -I -c 'import agent' 2>/dev/null; then
  echo "<3>E751 version $failed was not ready in $starts starts, and $previous cannot run any more: \
install a package that works"
  exit 0
fi
ln -sfn "$previous" "$home/current.new" && mv -T "$home/current.new" "$home/current"
sync "$home"
echo "$(date -u +%FT%TZ) version $failed was not ready in $starts starts: $previous is back" >"$state/taken-back"
echo "<3>E750 version $failed was not ready in $starts starts: $previous is back. Its own words: \
journalctl -u edge-agent"
exit 0
