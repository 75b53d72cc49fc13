// The charts of a timeline: one zoomable time axis for all, events as marks. Without it there are still pictures.
"use strict";

(() => {
  const colourOf = (name) => {
    const probe = document.createElement("span");
    probe.className = `probe ${name}`;
    document.body.append(probe);
    const colour = getComputedStyle(probe).backgroundColor;
    probe.remove();
    return colour;
  };
  const short = (value) => value == null ? "–" : value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : String(Number(value.toFixed(2)));
  const clockText = (at, step) => {
    const moment = new Date(at * 1000), clock = moment.toTimeString().slice(0, 8);
    return step < 1 ? `${clock}.${Math.floor(moment.getMilliseconds() / 100)}` : step >= 60 ? clock.slice(0, 5) : clock;
  };
  const faint = (colour, alpha) => colour.replace(/rgba?\(([^)]+?)\)/, (_, rgb) => `rgba(${rgb.split(",").slice(0, 3).join(",")}, ${alpha})`);

  function marks(events) {
    const colour = { outage: colourOf("state-failed"), worker_death: colourOf("state-failed"), retry: colourOf("state-pending") };
    const usual = colourOf("probe-soft");
    return (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      for (const event of events) {
        const x = Math.round(plot.valToPos(event.at, "x", true)) + 0.5;
        ctx.strokeStyle = colour[event.kind] ?? usual;
        if (event.until) {
          ctx.fillStyle = faint(colour[event.kind] ?? usual, 0.15);
          ctx.fillRect(x, bbox.top, plot.valToPos(event.until, "x", true) - x, bbox.height);
        }
        ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    };
  }

  function draw(container, zoom) {
    const text = container.querySelector("[data-timeline-data]").textContent, data = JSON.parse(text);
    const events = [...container.parentElement.querySelectorAll(".events > li")].map((each) => ({
      at: Number(each.dataset.at) / 1000,
      until: each.dataset.until ? Number(each.dataset.until) / 1000 : null,
      kind: each.className.replace("event-", ""),
    }));
    const soft = colourOf("probe-soft"), line = colourOf("probe-line");
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const length = Object.values(data.charts[0])[0]?.length ?? 0;
    const times = Array.from({ length }, (_, number) => (data.began_ms + (number + 0.5) * data.bucket_ms) / 1000);
    const sync = uPlot.sync(`timeline-${data.began_ms}`);
    const figures = [...container.querySelectorAll("[data-chart]")];
    let plots = [];
    plots = figures.map((figure, number) => {
      const names = Object.keys(data.charts[number]);
      const holder = figure.querySelector(".plot");
      const labels = new Map([...figure.querySelectorAll("[data-value]")].map((each) => [each.dataset.value, each]));
      const told = new Map([...labels].map(([name, each]) => [name, each.textContent]));
      const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: `${0.79 * rem}px Inter, sans-serif` };
      const options = {
        width: holder.clientWidth,
        height: holder.clientHeight,
        legend: { show: false },
        padding: [null, 2.2 * rem, null, null],
        cursor: { sync: { key: sync.key, setSeries: false }, drag: { x: true, y: false }, points: { size: 5 } },
        scales: { y: { range: (_, low, high) => [0, Math.max(high, 0.001) * 1.05] } },
        axes: [
          { ...axis, space: 5 * rem, size: 1.7 * rem, values: (_, splits) => splits.map((at) => clockText(at, splits[1] - splits[0])) },
          { ...axis, size: 3.4 * rem, space: 2 * rem, values: (_, splits) => splits.map(short) },
        ],
        series: [{}, ...names.map((name) => {
          const colour = colourOf(`line-${name}`);
          return { label: name, stroke: colour, width: 1.5, fill: faint(colour, 0.12), points: { show: false } };
        })],
        hooks: {
          draw: [marks(events)],
          setCursor: [(plot) => {
            const index = plot.cursor.idx;
            names.forEach((name, at) => {
              labels.get(name).textContent = index == null ? told.get(name) : short(plot.data[at + 1][index]);
            });
          }],
          setScale: [(plot, key) => {
            if (key !== "x" || plot.moving) return;
            const { min, max } = plot.scales.x;
            for (const other of plots) {
              if (other !== plot && (other.scales.x.min !== min || other.scales.x.max !== max)) {
                other.moving = true;
                other.setScale("x", { min, max });
                other.moving = false;
              }
            }
          }],
        },
      };
      holder.replaceChildren();
      const plot = new uPlot(options, [times, ...names.map((name) => data.charts[number][name])], holder);
      sync.sub(plot);
      return plot;
    });
    const resize = new ResizeObserver(() => {
      plots.forEach((plot, number) => {
        const holder = figures[number].querySelector(".plot");
        if (holder.clientWidth && holder.clientWidth !== plot.width) plot.setSize({ width: holder.clientWidth, height: holder.clientHeight });
      });
    });
    resize.observe(container);
    const isZoomed = ({ scales: { x } }) => x.min > times[0] || x.max < times.at(-1);
    if (zoom) plots[0].setScale("x", zoom);
    return {
      text,
      zoom: () => plots[0] && isZoomed(plots[0]) ? { min: plots[0].scales.x.min, max: plots[0].scales.x.max } : null,
      destroy: () => { resize.disconnect(); plots.forEach((plot) => plot.destroy()); },
    };
  }

  let drawn = new Map();
  function drawAll() {
    for (const [container, charts] of drawn) if (!container.isConnected) { charts.destroy(); drawn.delete(container); }
    for (const container of document.querySelectorAll("[data-timeline]")) {
      const charts = drawn.get(container), text = container.querySelector("[data-timeline-data]").textContent;
      if (charts?.text === text) continue;
      const zoom = charts?.zoom();
      charts?.destroy();
      drawn.set(container, draw(container, zoom));
    }
  }
  drawAll();
  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("theme-changed", () => {
    for (const charts of drawn.values()) charts.destroy();
    drawn = new Map();
    drawAll();
  });
})();
