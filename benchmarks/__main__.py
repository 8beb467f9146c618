"""``python -m benchmarks [NAME...] [--json] [--list]``: one JSON object a line, per figure."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from benchmarks import (
    alarms,
    backtest,
    book,
    devices,
    drain,
    drift,
    failover,
    flash,
    flow,
    footprint,
    gateway,
    latency,
    line,
    online,
    peak,
    plan,
    scan,
    soak,
    sparkplug,
    store,
    swap,
    worker,
)
from benchmarks.figure import Bench, Figure
from benchmarks.native import Missing

BENCHES = (
    Bench(("cpu_per_sample",), "CPU of the whole agent per delivered sample", 80, flow.cpu),
    Bench(("sustained",), "samples per second, agent pinned to one core", 75, flow.sustained),
    Bench(
        ("scan_vs_libmodbus", "scan_vs_pymodbus", "scan_pipelined"),
        "CPU of a Modbus scan per 125-register request",
        10,
        scan.scan,
    ),
    Bench(("modbus_decode",), "decoding by columns over decoding tag by tag", 2, scan.decode),
    Bench(
        ("plan_optimum", "plan_holes", "plan_learnt"),
        "request plans against the best ones, and registers that are not there",
        10,
        plan.plans,
    ),
    Bench(
        ("devices_100", "devices_period", "devices_linear"),
        "1 to 300 devices with 100 tags each, every second",
        160,
        devices.devices,
    ),
    Bench(("cycles",), "6,000 cycles of 10 devices without growth", 75, soak.short),
    Bench(("cycles_86400",), "86,400 cycles of 10 devices", 900, soak.whole, asked=True),
    Bench(("worker_overhead",), "a call of the worker over a bare session.run", 5, worker.worker),
    Bench(
        ("online_100",),
        "from a sample to its result: 100 models, once a second each",
        180,
        online.online,
    ),
    Bench(
        ("drift_false", "drift_found", "drift_week"),
        "drift of real measurements, and of seven days of the simulated plant",
        60,
        drift.drift,
    ),
    Bench(
        ("swap_wait", "crash_wait", "shadow_wait", "swap_lost"),
        "1 kHz through a swap, deaths of the worker, and beside a candidate that hangs",
        13,
        swap.swap,
    ),
    Bench(
        ("alarms_quiet", "alarms_flood"),
        "1,000 alarms over 1,000 tags at 10 Hz",
        15,
        alarms.alarms,
    ),
    Bench(
        ("alarm_latency",), "from the answer on the wire to the subscriber", 180, latency.latency
    ),
    Bench(
        ("block_bytes_modbus", "block_bytes_skab", "block_encode"),
        "sealed blocks of 600 rows",
        5,
        store.blocks,
    ),
    Bench(
        ("line_bytes_live", "line_bytes_history"),
        "bytes on a narrow line per sample: MQTT and TLS with PUBACKs",
        5,
        line.line,
    ),
    Bench(("sparkplug_encode",), "a Sparkplug payload of 1,000 metrics", 1, sparkplug.encoding),
    Bench(
        ("failover_cluster", "failover_pair"),
        "rows flow again after the broker in use was killed",
        30,
        failover.failover,
    ),
    Bench(
        ("drain_latency", "live_latency"),
        "eight hours that were missed beside live rows",
        220,
        drain.drain,
    ),
    Bench(
        ("device_bytes_5s", "ack_bytes"),
        "bytes that reach the device, as root",
        12,
        flash.flash,
    ),
    Bench(("history_column",), "one tag over 24 h out of 7 days x 50 tags", 25, store.history),
    Bench(("backtest",), "a week at 1 Hz x 8 channels, two models", 45, backtest.history),
    Bench(
        ("plant_cpu", "plant_period", "plant_daemon", "plant_memory"),
        "30 devices on TCP and serial lines, two sinks, 8 models, 30 alarms, the page open",
        100,
        gateway.gateway,
    ),
    Bench(
        ("plant_peak",),
        "that plant through a swap, a shadow, a back-test and an export, all at once",
        40,
        peak.peak,
    ),
    Bench(("memory_daemon", "memory_worker"), "PSS of daemon and worker", 50, footprint.memory),
    Bench(("start_to_ready", "restart_to_sample"), "how soon it is at work", 30, footprint.start),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for; figures on stdout, progress and a summary on stderr.

    0 when everything was measured, 69 when something could not be; a figure that is missed is
    a finding for a reader, not a failure of the program.
    """
    args = _arguments(argv)
    if args.list:
        for bench in BENCHES:
            print(f"{' '.join(bench.figures):40}  about {bench.takes_s:3} s  {bench.what}")
        return 0
    names = set(args.names)
    figures: list[Figure] = []
    code = 0
    for bench in BENCHES:
        if bench.asked if not names else not names.intersection(bench.figures):
            continue
        print(f"{bench.what}: about {bench.takes_s} s ...", file=sys.stderr)
        try:
            found = bench.measure()
        except Missing as e:
            print(f"{', '.join(bench.figures)}: not measured: {e}", file=sys.stderr)
            code = 69
            continue
        for figure in found:
            if not names or figure.name in names:
                print(figure.line(), flush=True)
                figures.append(figure)
    if args.book:
        book.rewrite(args.book, figures)
    if not args.json:
        print(book.table(figures), file=sys.stderr)
    return code


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    known = [name for bench in BENCHES for name in bench.figures]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="no summary on stderr")
    parser.add_argument("--list", action="store_true", help="what can be measured")
    parser.add_argument("--book", type=Path, metavar="FILE", help="rewrite the tables of FILE")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(known):
        parser.error(f"no such figure: {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    return args


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    raise SystemExit(main())
