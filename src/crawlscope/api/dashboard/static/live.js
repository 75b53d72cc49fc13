// Numbers of running crawls as they change: one feed for the page. Counts are written at once, and every few
// seconds the rest of the page is fetched again and put over the old one without moving anything.
"use strict";

(() => {
  // Viewers share an answer for a moment, so the last one has to be asked for after it.
  const REFRESH_MS = 4000, SHARED_MS = 2000, WIDTH = 1000, MIN_VISIBLE = 3, SVG = "http://www.w3.org/2000/svg";
  const number = (value) => value.toLocaleString("en-US");
  let feed, timer, last = 0, over = false;

  const countsOf = (crawl) => {
    const received = crawl.total_pages + crawl.pages_pending + crawl.pages_cancelled;
    return [
      ["indexed", crawl.pages_indexed - crawl.pages_unchanged - crawl.pages_empty], ["unchanged", crawl.pages_unchanged],
      ["empty", crawl.pages_empty], ["failed", crawl.pages_failed], ["pending", crawl.pages_pending],
      ["cancelled", crawl.pages_cancelled], ["expected", Math.max(0, (crawl.pages_expected ?? 0) - received)],
    ].filter(([, count]) => count > 0);
  };

  function writeBar(bar, counts) {
    const whole = counts.reduce((sum, [, count]) => sum + count, 0);
    const widths = counts.map(([, count]) => Math.max(MIN_VISIBLE, WIDTH * count / whole));
    const scale = WIDTH / widths.reduce((sum, width) => sum + width, 0);
    let x = 0;
    bar.replaceChildren(...counts.map(([name, count], at) => {
      const part = document.createElementNS(SVG, "rect"), title = document.createElementNS(SVG, "title");
      part.setAttribute("class", `state-${name}`);
      part.setAttribute("x", x.toFixed(2));
      part.setAttribute("width", (widths[at] * scale).toFixed(2));
      part.setAttribute("height", "10");
      title.textContent = `${name}: ${number(count)}`;
      part.append(title);
      x += widths[at] * scale;
      return part;
    }));
    bar.setAttribute("aria-label", `Pages: ${counts.map(([name, count]) => `${name} ${number(count)}`).join(", ")}`);
  }

  function writeLegend(legend, counts) {
    legend.replaceChildren(...counts.map(([name, count]) => {
      const item = document.createElement("li"), swatch = document.createElement("span"), value = document.createElement("b");
      swatch.className = `swatch state-${name}`;
      value.textContent = number(count);
      item.append(swatch, ` ${name} `, value);
      return item;
    }));
  }

  function write(root, crawl) {
    const counts = countsOf(crawl), find = (name) => root.querySelector(`[data-live="${name}"]`);
    const texts = { total: number(crawl.total_pages), pages: `${number(crawl.total_pages)} ${crawl.total_pages === 1 ? "page" : "pages"}`, reason: crawl.verdict?.reason, left: `${number(crawl.pages_pending)} ${crawl.pages_pending === 1 ? "page" : "pages"} to go` };
    for (const [name, text] of Object.entries(texts)) {
      const element = find(name);
      if (element && text && element.textContent !== text) element.textContent = text;
    }
    if (find("bar")) writeBar(find("bar"), counts);
    if (find("legend")) writeLegend(find("legend"), counts);
  }

  function refreshSoon() {
    if (timer || document.hidden) return;
    timer = setTimeout(refresh, over ? SHARED_MS : Math.max(0, last + REFRESH_MS - Date.now()));
  }

  async function refresh() {
    timer = null;
    last = Date.now();
    const address = location.pathname + location.search;
    await htmx.ajax("GET", address, { target: "#live", select: "#live", swap: "outerMorph" });
    const isFollowed = document.querySelector("#live")?.dataset.feed;
    if (!isFollowed) feed.close();
    else if (over) refreshSoon();
  }

  function take(crawl) {
    const root = [...document.querySelectorAll("[data-crawl]")].find((each) => each.dataset.crawl === crawl.crawl_id);
    if (root) write(root, crawl);
    refreshSoon();
  }

  function follow(address) {
    feed = new EventSource(address);
    feed.addEventListener("crawl", (event) => take(JSON.parse(event.data)));
    feed.addEventListener("crawls", (event) => {
      const known = new Set([...document.querySelectorAll("[data-crawl]")].map((each) => each.dataset.crawl));
      const { crawls } = JSON.parse(event.data);
      for (const crawl of crawls) if (known.has(crawl.crawl_id) && !crawl.sealed) take(crawl);
    });
    feed.addEventListener("pages", () => {
      document.dispatchEvent(new CustomEvent("pages-settled"));
      refreshSoon();
    });
    feed.addEventListener("end", (event) => {
      if (!document.querySelector("#live[data-crawl]")) return refreshSoon();
      over = true;
      feed.close();
      clearTimeout(timer);
      timer = null;
      if (JSON.parse(event.data).reason !== "deleted") refreshSoon();
    });
  }

  htmx.registerExtension("keep-open", {
    htmx_before_morph_node: (_, { oldNode, newNode }) => {
      if (oldNode.tagName === "DETAILS") newNode.open = oldNode.open;
    },
  });
  const live = document.querySelector("[data-feed]");
  if (live && window.EventSource) follow(live.dataset.feed);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && feed) refreshSoon(); });
})();
