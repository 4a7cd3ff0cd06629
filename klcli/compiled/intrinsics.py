"""What numba lacks: numbers that two threads share, addresses as pointers, and calls by address."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

INTEGER = ir.IntType(64)


def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return a pointer to `box[index]`; box and index are the first two arguments."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]], source_etype=INTEGER)


@intrinsic
def read(typing: Any, box: Any, index: Any) -> Any:
    """Return `box[index]` (acquire): what the other thread wrote to memory before this value is visible afterwards."""

    def build(*where: Any) -> Any:
        return where[1].load_atomic(_element(*where), "acquire", 8, typ=INTEGER)

    return types.int64(box, types.intp), build


@intrinsic
def write(typing: Any, box: Any, index: Any, value: Any) -> Any:
    """`box[index] = value` (release): a thread that reads it sees everything that this thread wrote before."""

    def build(*where: Any) -> Any:
        where[1].store_atomic(where[3][2], _element(*where), "release", 8)
        return where[0].get_dummy_value()

    return types.void(box, types.intp, types.int64), build


@intrinsic
def claim(typing: Any, box: Any, index: Any, before: Any, after: Any) -> Any:
    """Compare and exchange: if `box[index] == before`, set it to `after` and return True. One thread succeeds."""

    def build(*where: Any) -> Any:
        _, builder, _, (_, _, expected, value) = where
        result = builder.cmpxchg(_element(*where), expected, value, "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(box, types.intp, types.int64, types.int64), build


@intrinsic
def count(typing: Any, box: Any, index: Any) -> Any:
    """`box[index] += 1`."""

    def build(*where: Any) -> Any:
        where[1].atomic_rmw("add", _element(*where), ir.Constant(INTEGER, 1), "acq_rel")
        return where[0].get_dummy_value()

    return types.void(box, types.intp), build


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    """Return an address as a pointer to numbers of the type `like`, or of the element type of the array `like`."""
    number = like.dtype if isinstance(like, types.Array) else like.instance_type

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(number)(types.intp, like), build


@intrinsic
def call(typing: Any, function: Any, first: Any, second: Any, third: Any) -> Any:
    """Call the C function at an address, of three integers and with an integer result."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(INTEGER, [INTEGER] * 3)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 4), build
