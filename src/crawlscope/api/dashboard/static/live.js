// Running crawls as they change: one feed for the page, at its own address. Counts are written at once, and every
// few seconds the feed brings the whole page, which is laid over the old one without moving anything.
"use strict";

(() => {
  const RETRY_MS = 10_000, REFRESH_MS = 30_000, PATIENCE_MS = 3_000, WIDTH = 1000, MIN_VISIBLE = 3, SVG = "http://www.w3.org/2000/svg";
  const number = (value) => value.toLocaleString("en-US");
  const note = document.createElement("p");
  let feed, later, lostAt = null;

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

  // In a place of its own, so that nothing moves. What it says already is not read aloud again.
  function tell(text, href, link) {
    if (note.firstChild?.data === text) return;
    note.replaceChildren(text);
    if (href) {
      const anchor = document.createElement("a");
      anchor.href = href;
      anchor.textContent = link;
      note.append(" ", anchor);
    }
  }

  function tellLost() {
    lostAt ??= localText(new Date(), "clock");
    tell(`No connection to the service since ${lostAt}. This page is as it was then, and tries again.`);
  }

  function tellFound() {
    lostAt = null;
    tell("");
  }

  async function lay(html) {
    await htmx.swap({ text: html, target: "#live", select: "#live", swap: "outerMorph" });
    document.dispatchEvent(new CustomEvent("page-refreshed"));
    if (!document.querySelector("#live")?.hasAttribute("data-followed")) feed?.close();
  }

  // Asks for the page and follows it then; it says why if that is not possible.
  async function refresh() {
    clearTimeout(later);
    if (document.hidden || !document.querySelector("[data-followed]")) return;
    const answer = await fetch(location.href, { headers: { "HX-Request": "true" }, redirect: "manual" }).catch(() => null);
    if (document.hidden) return;
    if (answer?.ok) {
      tellFound();
      await lay(await answer.text());
      if (document.querySelector("[data-followed]")) follow();
    } else if (answer?.status === 401 || answer?.type === "opaqueredirect") {
      tell("This browser is no longer signed in.", `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`, "Sign in");
    } else if (answer?.status === 404) {
      tellDeleted();
    } else {
      tellLost();
      later = setTimeout(refresh, RETRY_MS);
    }
  }

  function tellDeleted() {
    feed?.close();
    tell("This crawl was deleted.", "/", "All crawls");
  }

  function follow() {
    feed?.close();
    const opened = feed = new EventSource(location.pathname + location.search);
    let wasOpen = false;
    feed.addEventListener("open", () => { wasOpen = true; tellFound(); });
    feed.addEventListener("error", () => {
      if (opened !== feed) return;
      // The browser tries again by itself, but not after an answer that is no feed: that of a proxy without a service.
      if (opened.readyState === EventSource.CLOSED) later = setTimeout(refresh, wasOpen ? 0 : RETRY_MS);
      else later = setTimeout(() => opened === feed && opened.readyState === EventSource.CONNECTING && tellLost(), PATIENCE_MS);
    });
    feed.addEventListener("crawl", (event) => {
      const crawl = JSON.parse(event.data);
      const root = [...document.querySelectorAll("[data-crawl]")].find((each) => each.dataset.crawl === crawl.crawl_id);
      if (root) write(root, crawl);
    });
    feed.addEventListener("page", (event) => lay(event.data));
    feed.addEventListener("page_unfollowed", () => {
      opened.close();
      later = setTimeout(() => opened === feed && refresh(), REFRESH_MS);
    });
    feed.addEventListener("end", (event) => {
      if (JSON.parse(event.data).reason === "deleted" && document.querySelector("#live[data-crawl]")) tellDeleted();
    });
  }

  htmx.registerExtension("keep-open", {
    htmx_before_morph_node: (_, { oldNode, newNode }) => {
      if (oldNode.tagName === "DETAILS") newNode.open = oldNode.open;
    },
  });
  if (document.querySelector("[data-followed]") && window.EventSource) {
    note.className = "connection";
    note.setAttribute("role", "status");
    document.body.append(note);
    document.body.classList.add("is-live");  // until it is left: at the end of the crawl nothing moves either
    follow();
    document.addEventListener("visibilitychange", () => document.hidden ? feed.close() : refresh());
    // A service on this machine answers without a network, too.
    for (const changed of ["offline", "online"]) window.addEventListener(changed, refresh);
  }
})();
