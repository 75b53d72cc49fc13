// The waterfall with all pages of a crawl: only visible rows exist, and their data comes in slices as they are
// scrolled to. Without it there is a table with 100 pages at a time.
"use strict";

(() => {
  const REM = parseFloat(getComputedStyle(document.documentElement).fontSize), ROW = Math.round(REM * 13 / 7), SLICE = 200, OVERSCAN = 12, MAX_SLICES = 60, WIDTH = 1000, MIN_WIDTH = 2.5, LABEL = 3.5 * REM;
  const SVG = "http://www.w3.org/2000/svg";

  const durationText = (ms) => {
    if (ms == null) return "–";
    if (ms < 9.95) return `${ms.toFixed(1)} ms`;
    if (ms < 999.5) return `${Math.round(ms)} ms`;
    if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
    const seconds = Math.round(ms / 1000);
    if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${String(seconds % 60).padStart(2, "0")}s`;
    return `${Math.floor(seconds / 3600).toLocaleString("en")}h ${String(Math.floor(seconds % 3600 / 60)).padStart(2, "0")}m`;
  };
  const pathOf = (url) => { try { const { pathname, search, hash } = new URL(url); return pathname + search + hash; } catch { return url; } };
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const cell = (className) => { const made = element("div", className); made.setAttribute("role", "cell"); return made; };

  class Waterfall {
    constructor(root) {
      this.root = root;
      this.total = Number(root.dataset.total);
      const query = new URLSearchParams(location.search);
      this.isInOrder = ["started", null].includes(query.get("sort")) && !query.get("state");
      this.finals = new Set();
      this.began = Number(root.dataset.began);
      this.whole = Number(root.dataset.ms);
      this.window = [0, this.whole];
      this.aligned = false;
      this.labels = JSON.parse(root.dataset.labels);
      this.slices = new Map();
      this.rows = new Map();
      this.free = [];
      this.build();
      this.render();
    }

    build() {
      this.frame = element("div", "wf");
      this.frame.style.setProperty("--row", `${ROW}px`);
      this.frame.setAttribute("role", "table");
      this.frame.setAttribute("aria-label", "Pages on a time axis");
      const head = element("div", "wf-row wf-head");
      head.setAttribute("role", "row");
      for (const [name, className] of [["Page", ""], ["State", "wf-state"], ["", "wf-bars"], ["Queued", "num m"], ["Took", "num"]]) {
        const made = element("div", className, name);
        made.setAttribute("role", "columnheader");
        head.append(made);
      }
      this.axis = head.children[2];
      this.axis.setAttribute("aria-label", "Time since the beginning");
      this.scroller = element("div", "wf-scroll");
      this.scroller.tabIndex = 0;
      this.scroller.setAttribute("role", "rowgroup");
      this.scroller.setAttribute("aria-label", "Pages");
      this.space = element("div", "wf-space");
      this.space.setAttribute("role", "presentation");
      this.setTotal(this.total);
      this.scroller.append(this.space);
      this.frame.append(head, this.scroller);
      this.root.replaceChildren(this.controls(), this.frame);
      this.scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
      this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      this.axis.addEventListener("pointerdown", (event) => this.select(event));
      this.axis.addEventListener("dblclick", () => this.zoomTo(0, this.whole));
      new ResizeObserver(() => { this.drawAxis(); this.schedule(); }).observe(this.scroller);
      document.addEventListener("page-refreshed", () => this.reload());
    }

    controls() {
      const bar = element("div", "wf-controls");
      const add = (text, label, act) => {
        const button = element("button", "", text);
        button.type = "button";
        button.title = label;
        button.setAttribute("aria-label", label);
        button.addEventListener("click", () => act(button));
        bar.append(button);
        return button;
      };
      add("−", "Zoom out", () => this.zoomBy(2));
      add("+", "Zoom in", () => this.zoomBy(0.5));
      add("←", "Earlier", () => this.pan(-0.5));
      add("→", "Later", () => this.pan(0.5));
      add("All", "All: the whole time", () => this.zoomTo(0, this.whole));
      add("Align", "Align: begin all pages at the left, to compare their lengths", (button) => {
        this.aligned = !this.aligned;
        button.setAttribute("aria-pressed", String(this.aligned));
        this.longest = null;
        this.redraw();
      }).setAttribute("aria-pressed", "false");
      this.range = element("span", "sub");
      bar.append(this.range);
      return bar;
    }

    wheel(event) {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      const delta = event.deltaY || event.deltaX;
      if (event.shiftKey) return this.pan(delta / 1000);
      const box = this.axis.getBoundingClientRect();
      this.zoomBy(Math.exp(delta / 400), (event.clientX - box.left) / box.width);
    }

    select(event) {
      const box = this.axis.getBoundingClientRect(), share = (at) => Math.min(1, Math.max(0, (at - box.left) / box.width));
      const from = share(event.clientX);
      this.axis.setPointerCapture(event.pointerId);
      this.axis.addEventListener("pointerup", (end) => {
        const [left, right] = [from, share(end.clientX)].sort((a, b) => a - b), [began, ended] = this.window;
        if (right - left > 0.01) this.zoomTo(began + left * (ended - began), began + right * (ended - began));
      }, { once: true });
    }

    zoomBy(factor, at = 0.5) {
      const [began, ended] = this.window, centre = began + at * (ended - began), length = Math.max(1, (ended - began) * factor);
      this.zoomTo(centre - at * length, centre + (1 - at) * length);
    }

    pan(share) {
      const [began, ended] = this.window, by = share * (ended - began);
      const bounded = Math.max(-began, Math.min(this.whole - ended, by));
      this.zoomTo(began + bounded, ended + bounded);
    }

    zoomTo(began, ended) {
      this.window = [Math.max(0, began), Math.min(this.whole, Math.max(ended, began + 1))];
      this.redraw();
    }

    redraw() {
      this.drawAxis();
      for (const [number, row] of this.rows) this.fill(row, number);
    }

    schedule() {
      if (this.scheduled) return;
      this.scheduled = true;
      requestAnimationFrame(() => { this.scheduled = false; this.render(); });
    }

    render() {
      if (!this.frame.isConnected) return;
      const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - OVERSCAN);
      const last = Math.min(this.total, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / ROW) + OVERSCAN);
      for (const [number, row] of this.rows) {
        if (number < first || number >= last) { this.rows.delete(number); this.free.push(row); }
      }
      for (let number = first; number < last; number++) {
        if (!this.rows.has(number)) {
          const row = this.free.pop() ?? this.newRow();
          row.node.style.transform = `translateY(${number * ROW}px)`;
          row.node.setAttribute("aria-rowindex", String(number + 2));
          this.rows.set(number, row);
          this.fill(row, number);
        }
      }
      for (const row of this.free.splice(40)) row.node.remove();
      for (let slice = Math.floor(first / SLICE); slice * SLICE < last; slice++) this.load(slice);
    }

    newRow() {
      const node = element("div", "wf-row");
      node.setAttribute("role", "row");
      const name = cell("wf-name"), link = element("a");
      name.append(link);
      const state = cell("wf-state"), swatch = element("span", "swatch"), word = document.createTextNode("");
      state.append(swatch, word);
      const bars = cell("wf-bars"), svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${WIDTH} 10`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      bars.append(svg);
      const queued = cell("num m"), took = cell("num");
      node.append(name, state, bars, queued, took);
      this.space.append(node);
      return { node, link, swatch, word, bars, svg, queued, took };
    }

    fill(row, number) {
      const page = this.slices.get(Math.floor(number / SLICE))?.rows?.[number % SLICE];
      if (!page) {
        row.link.removeAttribute("href");
        row.link.textContent = "…";
        row.word.data = row.queued.textContent = row.took.textContent = "";
        row.swatch.className = "";
        row.svg.replaceChildren();
        return;
      }
      row.link.href = `${this.root.dataset.page}?url=${encodeURIComponent(page.url)}`;
      row.link.textContent = pathOf(page.url);
      row.link.title = page.url;
      const waits = page.state === "queued" || page.state === "indexing";
      row.swatch.className = `swatch state-${waits ? "pending" : page.state}`;
      row.word.data = page.error_code ? `${page.state} ${page.error_code}` : page.state;
      row.queued.textContent = durationText(page.wait_ms);
      row.took.textContent = durationText(page.total_ms);
      row.bars.title = [["queue wait", page.wait_ms], ...page.stages.map(([name, ms]) => [this.labels[name], ms])]
        .filter(([, ms]) => ms != null).map(([name, ms]) => `${name} ${durationText(ms)}`).join(" · ");
      row.svg.replaceChildren(...this.bars(page));
    }

    bars(page) {
      const made = [], began = this.aligned ? 0 : this.window[0], length = this.aligned ? this.longestShown() : this.window[1] - began;
      const origin = this.aligned ? (page.queued_ms ?? page.started_ms ?? this.began) : this.began;
      const put = (name, from, ms, thin) => {
        const x = (from - origin - began) / length * WIDTH, width = Math.max(MIN_WIDTH, ms / length * WIDTH);
        if (x > WIDTH || x + width < 0) return;
        const bar = document.createElementNS(SVG, "rect");
        bar.setAttribute("class", `stage-${name}`);
        bar.setAttribute("x", Math.max(-10, x));
        bar.setAttribute("width", Math.min(width + Math.min(0, x + 10), WIDTH + 20));
        bar.setAttribute("y", thin ? 3.5 : 1);
        bar.setAttribute("height", thin ? 3 : 8);
        made.push(bar);
      };
      const now = this.began + this.whole, started = page.started_ms;
      if (page.queued_ms != null) put("queue_wait", page.queued_ms, Math.max(0, (started >= page.queued_ms ? started : page.settled_ms ?? now) - page.queued_ms), true);
      if (page.state === "indexing" && started != null) put("running", started, now - started);
      let at = started;
      if (page.total_ms != null && at != null) for (const [name, ms] of page.stages) { put(name, at, ms); at += ms; }
      return made;
    }

    longestShown() {
      if (this.longest == null) {
        const pages = [...this.slices.values()].flatMap((slice) => slice.rows ?? []);
        this.longest = Math.max(1, ...pages.map((page) => (page.total_ms ?? 0) + (page.wait_ms ?? 0)));
      }
      return this.longest;
    }

    drawAxis() {
      const [began, ended] = this.aligned ? [0, this.longestShown()] : this.window, length = ended - began;
      const svg = document.createElementNS(SVG, "svg"), wide = this.axis.clientWidth || 600;
      svg.setAttribute("aria-hidden", "true");
      for (const at of this.ticks(began, ended, wide)) {
        const text = document.createElementNS(SVG, "text");
        text.setAttribute("x", `${(at - began) / length * 100}%`);
        text.setAttribute("y", "70%");
        if (at === ended) text.setAttribute("text-anchor", "end");
        text.textContent = at === 0 ? "0" : durationText(at);
        svg.append(text);
      }
      this.axis.replaceChildren(svg);
      this.range.textContent = length < this.whole && !this.aligned ? `${durationText(began)} to ${durationText(ended)}` : "";
    }

    // Round times as far apart as their labels need; on a narrow axis where less than two fit, both of its ends.
    ticks(began, ended, wide) {
      const length = ended - began, about = length * 1.9 * LABEL / wide;
      const size = 10 ** Math.floor(Math.log10(about)), round = about >= 50000 ? [60e3, 120e3, 300e3, 600e3, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5] : [1, 2, 5, 10].map((factor) => factor * size);
      const step = round.find((each) => each >= about) ?? about, ticks = [];
      for (let at = Math.ceil(began / step) * step; at <= ended - length * LABEL / wide; at += step) ticks.push(at);
      return ticks.length > 1 ? ticks : [began, ended];
    }

    async fetchSlice(number) {
      const query = new URLSearchParams(location.search);
      query.set("limit", SLICE);
      query.set("offset", number * SLICE);
      const answer = await fetch(`${this.root.dataset.spans}?${query}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.statusText);
      return answer.json();
    }

    async reload() {
      if (!this.frame.isConnected) return;
      this.setTotal(Number(document.querySelector("[data-pages]").dataset.pages));
      const shown = [...new Set([...this.rows.keys()].map((row) => Math.floor(row / SLICE)))];
      const given = document.querySelector("[data-first-rows]");
      if (given) this.slices.set(0, { rows: JSON.parse(given.textContent) });
      for (const number of this.slices.keys()) if (!shown.includes(number)) this.slices.delete(number);
      try {
        await Promise.all((shown.length ? shown : [0]).filter((number) => !(given && number === 0) && !this.isFinal(number)).map(async (number) => {
          this.slices.set(number, { rows: (await this.fetchSlice(number)).rows });
        }));
      } catch { return; }
      const wasWhole = this.window[1] === this.whole;
      const ends = [...this.slices.values()].flatMap(({ rows }) => rows.map((page) => page.settled_ms ?? 0));
      this.whole = Math.max(this.whole, ...ends.map((end) => end - this.began));
      if (wasWhole) this.window[1] = this.whole;
      this.longest = null;
      this.render();
      this.redraw();
    }

    // In the order of their beginning, settled pages stay where they are if all before them do.
    isFinal(number) {
      const rows = this.slices.get(number)?.rows, isSettled = rows?.length === SLICE && rows.every((page) => page.settled_ms != null);
      if (this.isInOrder && isSettled && (number === 0 || this.finals.has(number - 1))) this.finals.add(number);
      return this.finals.has(number) && rows !== undefined;
    }

    setTotal(total) {
      this.total = total;
      this.frame.style.setProperty("--rows", `${total * ROW}px`);
      this.frame.setAttribute("aria-rowcount", String(total + 1));
    }

    async load(number) {
      if (this.slices.has(number)) return;
      const slice = {};
      this.slices.set(number, slice);
      if (this.slices.size > MAX_SLICES) this.slices.delete(this.slices.keys().next().value);
      try {
        slice.rows = (await this.fetchSlice(number)).rows;
      } catch {
        this.slices.delete(number);
        setTimeout(() => this.schedule(), 2000);
        return;
      }
      this.longest = null;
      if (this.aligned) return this.redraw();
      for (const [row, shown] of this.rows) if (Math.floor(row / SLICE) === number) this.fill(shown, row);
    }
  }

  const built = new WeakSet();
  function buildAll() {
    for (const root of document.querySelectorAll("[data-spans]")) {
      if (!built.has(root)) { built.add(root); new Waterfall(root); }
    }
  }
  buildAll();
  document.addEventListener("htmx:after:swap", buildAll);
})();
