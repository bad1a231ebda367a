"""Methods are wrapped once; those that there are not are asked for each time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import grpc

from chainrule.server.rpc.once import OnceInterceptor


async def test_a_method_is_wrapped_once_and_one_that_is_none_is_not_kept() -> None:
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(print) for name in ("/a", "/b")}
    asked: list[str] = []

    async def find(details: Any) -> Any:
        asked.append(details.method)
        return handlers.get(details.method)

    tested = OnceInterceptor()
    found = [
        await tested.intercept_service(find, cast(Any, SimpleNamespace(method=method)))
        for method in ("/a", "/b", "/a", "/none", "/none", "/b")
    ]
    assert found == [handlers["/a"], handlers["/b"], handlers["/a"], None, None, handlers["/b"]]
    assert asked == ["/a", "/b", "/none", "/none"]
