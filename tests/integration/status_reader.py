# SPDX-License-Identifier: MIT
"""A reader of the status segment that knows nothing but lessor-status(5): status_reader.py PAGE INSTANCE DATABASE

Where a field lies, and of which type it is, it takes from the page. Prints `name value` for every field of the header, of the
database's record, of its connections' records and of those of sessions in lanes.
"""
import mmap
import re
import struct
import sys

FORMATS = {"uint64": "Q", "uint32": "I", "int32": "i", "uint16": "H"}
ROW = re.compile(r"^\.It Sy (\w+) Pq (\d+) , (struct\\ \w+|\w+)(?:\[(\d+)\])?$")


def read_page(path):
    """{struct: [(field, offset, type, count)]}, and the magic and version the page names."""
    with open(path, encoding="utf-8") as page:
        lines = [line.rstrip("\n") for line in page]
    layout, fields = {}, None
    for line in lines:
        if line.startswith(".Ss ") or line.startswith(".Sh "):
            fields = layout.setdefault(line.split()[2], []) if line.startswith(".Ss struct ") else None
        row = ROW.match(line)
        if row and fields is not None:
            fields.append((row[1], int(row[2]), row[3].replace("\\", "").replace(" ", ""), int(row[4] or 0)))
    magic = int(next(line for line in lines if line.startswith("0x")), 16)
    version = int(lines[lines.index(".Sy version") + 2])
    return layout, magic, version


def value(memory, at, kind, count):
    if kind == "char":
        return memory[at : at + count].split(b"\0")[0].decode()
    return struct.unpack_from("=" + FORMATS[kind], memory, at)[0]


def fields_of(layout, name, memory, at):
    """Every scalar field of a record, nested structs by dotted names, arrays by index."""
    for field, offset, kind, count in layout[name]:
        if kind.startswith("struct"):
            nested = kind[len("struct") :]
            for inner, v in fields_of(layout, nested, memory, at + offset):
                yield field + "." + inner, v
        elif kind == "char" or not count:
            yield field, value(memory, at + offset, kind, count)
        else:
            for i in range(count):
                yield "%s[%d]" % (field, i), value(memory, at + offset + 8 * i, kind, 0)


def read_record(memory, at, size):
    """A copy that was not written meanwhile: the sequence is even, and the same before and after."""
    for _ in range(100000):
        before = value(memory, at, "uint64", 0)
        copy = bytes(memory[at : at + size])
        if before % 2 == 0 and value(memory, at, "uint64", 0) == before:
            return copy
    sys.exit("the record keeps changing")


def main():
    layout, magic, version = read_page(sys.argv[1])
    with open("/dev/shm/lessor." + sys.argv[2], "rb") as segment:
        memory = mmap.mmap(segment.fileno(), 0, prot=mmap.PROT_READ)
    header = dict(fields_of(layout, "lessor_status_header", memory, 0))
    if header["magic"] != magic or header["version"] != version:
        sys.exit("another magic or version: %x %d" % (header["magic"], header["version"]))
    for name, v in header.items():
        print("header." + name, v)
    for i in range(header["databases"]):
        size = header["database_size"]
        record = read_record(memory, header["database_offset"] + i * size, size)
        database = dict(fields_of(layout, "lessor_status_database", record, 0))
        if database["name"] == sys.argv[3]:
            for name, v in database.items():
                print(name, v)
    for i in range(header["connections"]):
        size = header["connection_size"]
        record = read_record(memory, header["connection_offset"] + i * size, size)
        for name, v in fields_of(layout, "lessor_status_connection", record, 0):
            print("connection%d.%s" % (i, name), v)
    for i in range(header["lane_capacity"]):
        size = header["lane_size"]
        record = read_record(memory, header["lane_offset"] + i * size, size)
        for name, v in fields_of(layout, "lessor_status_lane", record, 0):
            print("lane%d.%s" % (i, name), v)


main()
