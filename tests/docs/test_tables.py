from sqlalchemy import Column, Dialect, Table
from sqlalchemy.dialects import postgresql

from crawlscope.models import Base
from tests.support.documentation import code_of, page, sections

DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # has no annotations
TABLES: dict[str, Table] = {table.name: table for table in Base.metadata.sorted_tables}
SECTIONS = {name: section for section in sections(page("docs/tables.md"), level=2) for name in section.names}


def test_every_table_is_documented_and_no_other():
    assert set(SECTIONS) == set(TABLES)


def test_every_column_is_documented_with_its_type_and_no_other():
    for name, table in TABLES.items():
        documented = {code_of(row[0])[0]: row[1] for row in SECTIONS[name].rows("column")}
        assert documented == {column.name: _type_of(column) for column in table.columns}, name


def _type_of(column: "Column[object]") -> str:
    spelled = column.type.compile(DIALECT).lower().replace("timestamp with time zone", "timestamptz")
    return f"{spelled}, null" if column.nullable else spelled
