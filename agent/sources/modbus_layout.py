"""From a device's tags to the requests of a scan, and where each tag is in their answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.codecs.modbus_words import Field
from agent.links.modbus_scan import Read
from agent.sources.modbus_plan import (
    BIT_TABLES,
    FUNCTION,
    MAX_BITS,
    REQUEST_COST,
    Span,
    Table,
    padded,
    plan,
)
from agent.sources.modbus_tags import ModbusTag, Place


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
    *,
    gaps: bool = True,
) -> tuple[list[Read], list[Field]]:
    """The requests that read *tags*, and a field for each tag in their order."""
    wanted: dict[Table, list[Span]] = {}
    for name in tags:
        wanted.setdefault(places[name].table, []).append(places[name].span)
    reads: list[Read] = []
    blocks: list[_Block] = []
    at = 0
    for table, spans in wanted.items():
        bits = table in BIT_TABLES
        limit = MAX_BITS if bits else max_registers
        cost = REQUEST_COST * 16 if bits else REQUEST_COST
        for span in plan(spans, limit, cost, gaps=gaps):
            blocks.append(_Block(len(reads), table, span, at))
            reads.append(Read(FUNCTION[table], span.first, span.count, padded(span, spans)))
            at += reads[-1].size
    return reads, [_field(tag, places[name], blocks) for name, tag in tags.items()]


def _field(tag: ModbusTag, where: Place, blocks: list[_Block]) -> Field:
    """Where one tag is in the answer that holds it whole."""
    block = next(b for b in blocks if b.table == where.table and b.span.holds(where.span))
    index = where.span.first - block.span.first
    if where.table in BIT_TABLES:
        at, bit = block.at + index // 8, index % 8
    elif where.kind == "bool":
        bit = tag.bit or 0
        at, bit = block.at + 2 * index + (bit < 8), bit % 8
    else:
        at, bit = block.at + 2 * index, 0
    return Field(at, block.number, where.kind, tag.order, bit, tag.scale, tag.offset)
