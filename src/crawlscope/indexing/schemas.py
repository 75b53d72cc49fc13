"""Documents of programs, and their outcomes, for Python and HTTP."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crawlscope.core.values import storable
from crawlscope.core.vocabulary import PageState

MAX_URL_LENGTH = 8_192
Text = Annotated[str, AfterValidator(storable)]


class DocumentMetadata(BaseModel):
    """Facts about a document besides its text; further fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    url: str
    title: str | None = None
    language: str | None = None
    description: str | None = None


class IndexDocumentRequest(BaseModel):
    url: str
    markdown: str
    metadata: DocumentMetadata | None = None


class NewDocument(BaseModel):
    """A document as `POST /api/documents` takes it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_LENGTH), AfterValidator(storable)]
    """Identifies the document. Another one with this URL is replaced."""
    markdown: str
    """Its text."""
    title: Text | None = None
    """Default: the first heading of the text."""
    language: Text | None = None
    """Such as `en`. Default: detected."""
    crawl_id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(storable)] | None = None
    """The crawl or import that the document is found by, and that its operations count for."""

    def request(self) -> IndexDocumentRequest:
        metadata = DocumentMetadata(url=self.url, title=self.title, language=self.language)
        return IndexDocumentRequest(url=self.url, markdown=self.markdown, metadata=metadata)


class DocumentIndexed(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    success: bool
    url: str
    chunks: int
    """The number of chunks that the index has of it."""
    state: PageState
    """`indexed`, `unchanged` (the index had this content already) or `empty` (it has no text)."""
