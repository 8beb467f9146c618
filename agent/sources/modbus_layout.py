"""From a device's tags to the requests of a scan, and where each tag is in their answers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.codecs.modbus_words import Field
from agent.links.modbus_scan import Read
from agent.sources.modbus_address import Place
from agent.sources.modbus_cost import Cost
from agent.sources.modbus_place import coil, field
from agent.sources.modbus_plan import (
    BIT_TABLES,
    FUNCTION,
    MAX_BITS,
    Span,
    Table,
    plan,
)
from agent.sources.modbus_tags import ModbusTag


@dataclass(frozen=True, slots=True)
class _Block:
    """One request: what it covers, and where its data begins in the scan's buffer."""

    number: int
    table: Table
    span: Span
    at: int


def layout(
    tags: Mapping[str, ModbusTag],
    places: Mapping[str, Place],
    max_registers: int,
    cost: Cost,
    holes: Mapping[Table, Collection[Span]] | None = None,
) -> tuple[list[Read], list[Field]]:
    """The requests that read *tags*, and a field for each tag in their order.

    No request touches one of the *holes*; no tag may overlap one.
    """
    wanted: dict[Table, list[Span]] = {}
    for name in tags:
        wanted.setdefault(places[name].table, []).append(places[name].span)
    reads: list[Read] = []
    blocks: list[_Block] = []
    at = 0
    for table, spans in wanted.items():
        bits = table in BIT_TABLES
        limit = MAX_BITS if bits else max_registers
        barriers = holes.get(table, ()) if holes else ()
        for span in plan(spans, limit, cost.in_registers(bits=bits), barriers):
            blocks.append(_Block(len(reads), table, span, at))
            of = _words(tags, places, table, span)
            reads.append(Read(FUNCTION[table], span.first, span.count, of))
            at += reads[-1].size
    column = {name: i for i, name in enumerate(tags)}
    return reads, [
        _field(tag, places[name], blocks, column.get(tag.scale_by or ""))
        for name, tag in tags.items()
    ]


def _words(
    tags: Mapping[str, ModbusTag], places: Mapping[str, Place], table: Table, span: Span
) -> str:
    """The tags of one request: ``flow 40011 to temp 40020 -> holding, wire 10 to 19``."""
    read = [n for n in tags if places[n].table == table and span.holds(places[n].span)]
    first = min(read, key=lambda n: places[n].span)
    last = max(read, key=lambda n: places[n].span.end)
    names = f"{first} {tags[first].reg}"
    if last != first:
        names += f" to {last} {tags[last].reg}"
    wire = f"{span.first}" if span.count == 1 else f"{span.first} to {span.end - 1}"
    return f"{names} -> {table}, wire {wire}"


def _field(tag: ModbusTag, where: Place, blocks: list[_Block], scale_by: int | None) -> Field:
    """Where one tag is in the answer that holds it whole."""
    block = next(b for b in blocks if b.table == where.table and b.span.holds(where.span))
    index = where.span.first - block.span.first
    if where.table in BIT_TABLES:
        found = field(tag, where, block.number, block.at, scale_by)
        return coil(found, block.at + index // 8, index % 8)
    return field(tag, where, block.number, block.at + 2 * index, scale_by)
