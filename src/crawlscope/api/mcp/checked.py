"""A tool whose every failure is a clear sentence, arguments that it does not know included."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from mcp.server.context import LifespanContextT, RequestT
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase
from mcp.types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from crawlscope.core.errors import CrawlscopeError


class _NothingElse(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CheckedTool(Tool):
    @classmethod
    def of(cls, function: Callable[..., Any], title: str, annotations: ToolAnnotations) -> "CheckedTool":
        """The SDK passes over arguments that a function does not have; here they are refused."""
        tool = cls.from_function(
            function,
            title=title,
            description=inspect.getdoc(function),
            annotations=annotations,
            structured_output=True,
        )
        known = tool.fn_metadata.arg_model
        strict = create_model(known.__name__, __base__=(known, _NothingElse))
        tool.fn_metadata.arg_model = cast(type[ArgModelBase], strict)
        tool.parameters = strict.model_json_schema(by_alias=True)
        return cast(CheckedTool, tool)

    async def run(
        self,
        arguments: dict[str, Any],
        context: Context[LifespanContextT, RequestT],
        convert_result: bool = False,
    ) -> Any:
        """Raises `ToolError` with a sentence, `UnexpectedToolError` for what only the log may tell."""
        try:
            return await super().run(arguments, context, convert_result)
        except UnexpectedToolError as error:
            if isinstance(error.__cause__, CrawlscopeError):
                raise ToolError(str(error.__cause__)) from error.__cause__
            raise UnexpectedToolError(
                f"{self.name} failed unexpectedly; the log says why"
            ) from error.__cause__
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"{self.name}: {self._explain(error.__cause__)}") from error.__cause__
            raise

    def _explain(self, error: ValidationError) -> str:
        issues = error.errors(include_url=False, include_context=False)
        return "; ".join(self._sentence(issue) for issue in issues)

    def _sentence(self, issue: Mapping[str, Any]) -> str:
        where = ".".join(str(part) for part in issue["loc"])
        if issue["type"] == "extra_forbidden":
            return f"there is no argument {where!r}, only {', '.join(self.parameters['properties'])}"
        if issue["type"] == "missing":
            return f"{where!r} is missing"
        return f"{where!r}: {issue['msg'][:1].lower()}{issue['msg'][1:]}"
