"""An index of pages in several languages answers in each of them."""

from datetime import UTC, datetime
from pathlib import Path

from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.generations import repository as generations
from crawlscope.insights.service import Insights
from tests.support.installation import running_installation
from tests.support.producing import deliver

SITE = "https://docs.example"
PAGES = {
    f"{SITE}/haus": (
        "en",  # as templates declare it
        (
            "Das alte Haus am See wurde im vergangenen Jahr verkauft. Der neue Eigentümer will die Fenster "
            "ersetzen und den Garten neu anlegen, bevor der Winter beginnt."
        ),
    ),
    f"{SITE}/cancion": (
        None,
        (
            "La canción de cuna más antigua de la región fue escrita por una maestra del pueblo. Todavía la "
            "cantan los niños cuando llega la noche y se apagan las luces de la casa."
        ),
    ),
    f"{SITE}/boiler": (
        "en",
        (
            "The boiler is inspected every morning, and the pressure is written into the log. Running costs "
            "are reported at the end of the year by the engineer of La Casa."
        ),
    ),
}


async def test_a_query_finds_the_other_forms_of_its_words_in_its_own_language(
    database: Database, tmp_path: Path
) -> None:
    async with running_installation(database, tmp_path) as here:
        pages = [
            {"markdown": text, "metadata": {"sourceURL": url, "url": url, "language": language}}
            for url, (language, text) in PAGES.items()
        ]
        await deliver(here.database, "crawl-1", "crawl.page", pages, at=datetime.now(UTC))
        await here.work()
        async with database.transaction() as connection:
            serving = (await generations.live(connection)).serving
            assert serving is not None
            counted = await documents.count_languages(connection, serving.id)
        assert counted == {"de": 1, "es": 1, "en": 1}
        stats = await Insights(database).stats()
        assert (stats.languages, stats.language_notice) == (counted, None)  # its model reads all of them
        assert await here.found("die Häuser am See") == [f"{SITE}/haus"]
        assert await here.found("las canciones de la región") == [f"{SITE}/cancion"]
        assert await here.found("inspecting the boilers") == [f"{SITE}/boiler"]
        assert await here.found("hauser") == [f"{SITE}/haus"]
        assert (await here.search("canciones")).results[0].language == "es"
