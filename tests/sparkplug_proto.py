"""Sparkplug's payload as Google's protobuf reads it, from the field numbers of the specification
(6.4.6 to 6.4.16): what nobody here wrote must read our bytes as we mean them.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "PropertyValue": [
        ("type", 1, F.TYPE_UINT32), ("is_null", 2, F.TYPE_BOOL), ("int_value", 3, F.TYPE_UINT32),
        ("long_value", 4, F.TYPE_UINT64), ("float_value", 5, F.TYPE_FLOAT),
        ("double_value", 6, F.TYPE_DOUBLE), ("boolean_value", 7, F.TYPE_BOOL),
        ("string_value", 8, F.TYPE_STRING),
    ],
    "PropertySet": [("keys", 1, F.TYPE_STRING, "*"), ("values", 2, "PropertyValue", "*")],
    "Metric": [
        ("name", 1, F.TYPE_STRING), ("alias", 2, F.TYPE_UINT64), ("timestamp", 3, F.TYPE_UINT64),
        ("datatype", 4, F.TYPE_UINT32), ("is_historical", 5, F.TYPE_BOOL),
        ("is_transient", 6, F.TYPE_BOOL), ("is_null", 7, F.TYPE_BOOL),
        ("properties", 9, "PropertySet"), ("int_value", 10, F.TYPE_UINT32),
        ("long_value", 11, F.TYPE_UINT64), ("float_value", 12, F.TYPE_FLOAT),
        ("double_value", 13, F.TYPE_DOUBLE), ("boolean_value", 14, F.TYPE_BOOL),
        ("string_value", 15, F.TYPE_STRING), ("bytes_value", 16, F.TYPE_BYTES),
        ("dataset_value", 17, F.TYPE_BYTES), ("template_value", 18, F.TYPE_BYTES),
    ],
    "Payload": [
        ("timestamp", 1, F.TYPE_UINT64), ("metrics", 2, "Metric", "*"), ("seq", 3, F.TYPE_UINT64),
        ("uuid", 4, F.TYPE_STRING), ("body", 5, F.TYPE_BYTES),
    ],
}  # fmt: skip


def _payload():
    file = descriptor_pb2.FileDescriptorProto(name="edge.proto", package="edge", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, *many in fields:
            one = message.field.add(name=field, number=number)
            one.label = F.LABEL_REPEATED if many else F.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = F.TYPE_MESSAGE, f".edge.{kind}"
            else:
                one.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("edge.Payload"))


Payload = _payload()
VALUES = tuple(name for name, number, _ in _MESSAGES["Metric"][8:])


def value(metric):
    """The value of a metric as protobuf has it; None for null."""
    found = [getattr(metric, name) for name in VALUES if metric.HasField(name)]
    return None if metric.is_null or not found else found[0]


def properties(metric):
    """Key -> value of a metric's properties."""
    kinds = ("int_value", "long_value", "float_value", "double_value",
             "boolean_value", "string_value")  # fmt: skip
    return {
        key: next((getattr(v, k) for k in kinds if v.HasField(k)), None)
        for key, v in zip(metric.properties.keys, metric.properties.values, strict=True)
    }
