// Shows the list of several pipelines, as /events sends it. Writes text with textContent only.
"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const full = (n) => (n == null ? "–" : Math.round(n).toLocaleString("en"));
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const span = (s) => (s == null ? "–" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`);
  const WRITTEN = 2; // its place in a point: see Point in recorder.py
  let heard = 0, apart = 1000, opened = false;

  const stateOf = ({ snapshot }) => {
    const bad = Object.entries(snapshot.ready).find(([, check]) => !check.ok);
    const failed = snapshot.restart;
    if (snapshot.state === "failed" && failed) return ["bad", `${failed.code}, starts again in ${span(failed.again_s)}`];
    if (snapshot.state !== "running") return ["warn", failed ? `${snapshot.state} after ${failed.code}` : snapshot.state];
    if (snapshot.processes === 0) return ["warn", "its worker is starting"];
    if (!snapshot.well) return ["bad", "stalled"];
    if (snapshot.pause) return ["warn", `paused since ${new Date(snapshot.pause.since * 1000).toLocaleString()}`];
    if (snapshot.paused) return ["bad", "paused: the database is away"];
    if (bad) return ["warn", bad[1].detail === "not read yet" ? "starting" : `not ready: ${bad[0]}`];
    return ["good", "running"];
  };

  const rowOf = (name) => {
    const row = document.createElement("tr");
    const link = document.createElement("a");
    link.href = `/pipelines/${encodeURIComponent(name)}`;
    link.textContent = name;
    const head = document.createElement("th");
    head.scope = "row";
    head.append(link);
    row.append(head);
    for (let cell = 0; cell < 7; cell += 1) {
      const made = document.createElement("td");
      if (cell > 1) made.className = "number";
      row.append(made);
    }
    row.dataset.name = name;
    return row;
  };

  const draw = (moments) => {
    const names = Object.keys(moments).sort(), rows = id("rows");
    const there = new Map([...rows.children].map((row) => [row.dataset.name, row]));
    let well = 0;
    rows.replaceChildren(...names.map((name) => {
      const row = there.get(name) || rowOf(name), moment = moments[name], { snapshot, point } = moment;
      const [state, text] = stateOf(moment);
      if (state === "good") well += 1;
      const [, shown, route, waiting, oldest, rate, written, quarantined] = row.children;
      row.dataset.state = state;
      put(shown, text);
      put(route, `${snapshot.queue} → ${snapshot.table}`);
      put(waiting, full(snapshot.gauges.queue_visible_messages));
      put(oldest, span(snapshot.gauges.queue_oldest_age_seconds));
      put(rate, full(point[WRITTEN]));
      put(written, full(snapshot.counts.written));
      put(quarantined, full(snapshot.counts.quarantined));
      return row;
    }));
    put(id("count"), `${well} of ${names.length} run`);
    id("pill").dataset.state = well === names.length ? "good" : well ? "warn" : "bad";
    put(id("pill-text"), well === names.length ? "all run" : `${names.length - well} need a look`);
    document.title = `${well} of ${names.length} pipelines run`;
  };

  const listen = () => {
    const events = new EventSource("/events");
    events.addEventListener("moments", (event) => {
      const now = Date.now();
      if (opened) apart = Math.max(1000, now - heard);
      opened = true; heard = now;
      draw(JSON.parse(event.data));
      document.body.dataset.live = "yes";
    });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(listen, 2000); }
    });
  };
  setInterval(() => {
    if (!opened || Date.now() - heard < 4 * apart) return;
    id("pill").dataset.state = "bad";
    put(id("pill-text"), "no answer, retrying");
  }, 1000);
  listen();
})();
