/* Draws the server's figures with the colours of tokens.css, after the first paint, and lets them grow. */

import { number, say } from "./strings.js";

const KEPT_MS = 24 * 3600 * 1000;
let library;

function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

function plotly() {
  library ??= painted().then(
    () =>
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = document.getElementById("plotly-source").dataset.plotly;
        script.onload = () => resolve(window.Plotly);
        script.onerror = reject;
        document.head.append(script);
      }),
  );
  return library;
}

const COLORS = ["ink", "ink-3", "line-strong", "raised", "bad", "chart-grid", "chart-1-area", "chart-1", "chart-2", "chart-3", "chart-4", "chart-5"];

/* A custom property holds light-dark(...); a painted element knows which of the two it is. */
function tokens() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const found = Object.fromEntries(COLORS.map((name) => [name, read(name)]));
  probe.remove();
  return { ...found, face: getComputedStyle(document.body).fontFamily };
}

/* Readings further apart than this have a hole between them: minutes are the coarsest that are kept. */
const HOLE_MS = 90_000;

/** Points with an empty one in each hole, so that no line pretends to know what was there. */
function holed(x, y) {
  const xs = [];
  const ys = [];
  x.forEach((at, index) => {
    if (index && at - x[index - 1] > HOLE_MS) {
      xs.push(x[index - 1] + 1);
      ys.push(null);
    }
    xs.push(at);
    ys.push(y[index]);
  });
  return { x: xs, y: ys };
}

const STYLES = [
  (color, y) => ({
    line: { color: color["chart-1"], width: 1.75 },
    /* plotly.js would fill right across a hole. */
    fill: y.includes(null) ? "none" : "tozeroy",
    fillcolor: color["chart-1-area"],
  }),
  (color) => ({ line: { color: color["chart-2"], width: 1.5, dash: "dash" } }),
];

/* Of several lines that are compared each says which colour and dashes it has. */
const compared = (color, { tone, dash }) => ({ line: { color: color[`chart-${tone + 1}`], width: 1.5, dash } });

function axis(color, given, more) {
  const { title, ...rest } = given || {};
  return {
    gridcolor: color["chart-grid"],
    linecolor: color["line-strong"],
    tickcolor: color["line-strong"],
    zeroline: false,
    fixedrange: true,
    automargin: true,
    ...more,
    ...rest,
  };
}

function layout(color, given, bars) {
  const made = {
    autosize: true,
    font: { family: color.face, size: 11, color: color["ink-3"] },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    margin: { l: 36, r: 12, t: 10, b: 26 },
    showlegend: false,
    dragmode: false,
    hovermode: bars ? "closest" : "x unified",
    bargap: 0.35,
    hoverlabel: {
      bgcolor: color.raised,
      bordercolor: color["line-strong"],
      font: { family: color.face, size: 12, color: color.ink },
    },
    xaxis: axis(color, given.xaxis, {
      showgrid: false,
      showline: true,
      ticks: "outside",
      ticklen: 4,
      nticks: innerWidth < 600 ? 4 : 8,
      hoverformat: bars ? "%-d %b %Y" : "%H:%M:%S",
      ...(bars && given.xaxis.type === "date" ? { tickformat: "%-d %b" } : {}),
    }),
    yaxis: axis(color, given.yaxis, { nticks: 5 }),
  };
  if (given.yaxis2) made.yaxis2 = axis(color, given.yaxis2, { nticks: 5, tickmode: "auto", tickformat: ",.2~f", showgrid: false });
  if (given.meta?.limit) {
    const y = given.meta.limit;
    made.shapes = [
      { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: color.bad, width: 1, dash: "dot" } },
    ];
  }
  return made;
}

function digits(value) {
  return Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0;
}

export class Chart {
  /** `element` has data-chart; its figure stands in the json_script of the same id plus "-data". */
  constructor(element) {
    this.element = element;
    this.figure = JSON.parse(document.getElementById(`${element.id}-data`).textContent);
    this.columns = (element.dataset.columns || "").split(" ");
    this.wait = document.querySelector(`[data-wait="${element.id}"]`);
    this.legend = document.querySelector(`[data-legend="${element.id}"]`);
    document.addEventListener("haein:theme", () => this.plan());
    document.addEventListener("visibilitychange", () => document.hidden || this.plan());
    new ResizeObserver(() => this.plan()).observe(element);
    this.plan();
  }

  get bars() {
    return this.figure.data[0]?.type === "bar";
  }

  get empty() {
    return !this.figure.data.some((trace) => trace.x.length);
  }

  get last() {
    return this.figure.data[0].x.at(-1) ?? null;
  }

  /** Columns of readings: after a reset they take the place of what is not older than they are. */
  extend(message, { clear }) {
    const first = message.t[0] ?? Infinity;
    this.figure.data.forEach((trace, index) => {
      const kept = clear ? 0 : trace.x.findLastIndex((x) => x < first) + 1;
      trace.x.splice(kept, Infinity, ...message.t);
      trace.y.splice(kept, Infinity, ...message[this.columns[index]]);
      const old = trace.x.findIndex((x) => x > trace.x.at(-1) - KEPT_MS);
      if (old > 0) {
        trace.x.splice(0, old);
        trace.y.splice(0, old);
      }
    });
    this.plan();
  }

  plan() {
    if (this.planned || document.hidden) return;
    this.planned = true;
    requestAnimationFrame(async () => {
      if (!this.empty) await this.draw(await plotly());
      this.planned = false;
    });
  }

  async draw(Plotly) {
    if (this.wait) this.wait.hidden = true;
    this.describe();
    const color = tokens();
    const data = this.figure.data.map((trace, index) => ({
      ...trace,
      ...(this.bars ? { marker: { color: color[`chart-${index + 1}`] } } : this.line(trace, STYLES[index], color)),
      hovertemplate: this.bars ? `%{x}<br>%{y:,.4~f} ${this.unit(trace)}<extra></extra>` : `%{y:,.1f} ${this.unit(trace)}`,
    }));
    await Plotly.react(this.element, data, layout(color, this.figure.layout, this.bars), {
      displayModeBar: false,
      responsive: false,
      plotlyServerURL: "",
      doubleClick: false,
      scrollZoom: false,
    });
  }

  line(trace, style, color) {
    if (trace.meta) return compared(color, trace.meta);
    const points = holed(trace.x, trace.y);
    return { ...points, ...style(color, points.y) };
  }

  unit(trace) {
    const name = trace.yaxis === "y2" ? "yaxis2" : "yaxis";
    return this.figure.layout[name]?.title?.text ?? "";
  }

  named(part, trace, index) {
    part.dataset.bar = index;
    part.append(trace.name);
    return part;
  }

  /** The legend doubles as the newest reading, or as the mean of lines that are compared, in words that a screen reader finds. */
  describe() {
    if (!this.legend) return;
    const parts = this.figure.data.map((trace, index) => {
      const part = document.createElement("span");
      if (this.bars) return this.named(part, trace, index);
      const value = trace.meta?.mean ?? trace.y.at(-1);
      if (trace.meta) Object.assign(part.dataset, { tone: trace.meta.tone, dash: trace.meta.dash });
      else part.dataset.series = index;
      const figure = document.createElement("b");
      figure.textContent = value == null ? say("noReading") : `${number(value, digits(value))} ${this.unit(trace)}`;
      part.append(`${trace.name} `, figure);
      return part;
    });
    const limit = this.figure.layout.meta?.limit;
    if (limit) {
      const part = document.createElement("span");
      part.dataset.series = "limit";
      part.append(say("limit", { n: `${number(limit)} ${this.unit(this.figure.data[0])}` }));
      parts.push(part);
    }
    this.legend.replaceChildren(...parts);
  }
}

export const charts = () => [...document.querySelectorAll("[data-chart]")].map((element) => new Chart(element));
