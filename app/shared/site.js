// What every page shares: the theme, row actions with confirmation, and Vega charts inside gr.HTML components.
"use strict";
(() => {
  const KEY = "rote-lab-theme";
  const stored = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const isDark = () => document.body.classList.contains("dark");

  // Gradio follows the system, and pages without it do so here; a choice made by hand wins over both, on every page.
  const system = () => matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const applyTheme = () => {
    const choice = stored() || (document.querySelector("gradio-app") ? null : system());
    if (choice && document.body && isDark() !== (choice === "dark")) {
      document.body.classList.toggle("dark", choice === "dark");
    }
  };
  const watchTheme = () => {
    applyTheme();
    new MutationObserver(applyTheme).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  };
  if (document.body) watchTheme();
  else document.addEventListener("DOMContentLoaded", watchTheme);
  const toggleTheme = () => {
    const next = isDark() ? "light" : "dark";
    try { localStorage.setItem(KEY, next); } catch { /* private window: the choice lasts for this page */ }
    document.body.classList.toggle("dark", next === "dark");
  };
  document.addEventListener("click", (event) => event.target.closest(".lab.top .theme") && toggleTheme());

  // Where the lab has accounts, a page that is still open when its sign-in has ended leads to signing in, and back.
  const ask = window.fetch.bind(window);
  window.fetch = async (...given) => {
    const answer = await ask(...given);
    const signIn = answer.status === 401 && answer.headers.get("x-sign-in");
    if (signIn) location.assign(`${signIn}?next=${encodeURIComponent(location.pathname + location.search)}`);
    return answer;
  };

  // A question before something that cannot be undone. Resolves to true or false.
  const confirmAction = (text, label) => new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    dialog.className = "lab-dialog";
    const words = document.createElement("p");
    words.dir = "auto";
    words.textContent = text;
    const row = document.createElement("div");
    row.className = "dialog-actions";
    const keep = document.createElement("button");
    keep.className = "button";
    keep.textContent = "Keep it";
    const go = document.createElement("button");
    go.className = "button danger";
    go.textContent = label;
    row.append(keep, go);
    dialog.append(words, row);
    keep.onclick = () => dialog.close("no");
    go.onclick = () => dialog.close("yes");
    dialog.onclose = () => { dialog.remove(); resolve(dialog.returnValue === "yes"); };
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  });

  // Clicks on [data-act] inside a component become events with the element's data-* values. Before, data-confirm asks;
  // data-address (JSON) goes into the page's address; afterwards data-scroll names the element to scroll to.
  const actions = (element, trigger, name) => {
    element.addEventListener("click", async (event) => {
      const button = event.target.closest("[data-act]");
      if (!button || !element.contains(button)) return;
      event.preventDefault();
      const data = { ...button.dataset };
      if (data.confirm && !(await confirmAction(data.confirm, data.confirmLabel || "Yes"))) return;
      if (data.address) setAddress(JSON.parse(data.address));
      trigger(name, data);
      if (data.scroll) document.getElementById(data.scroll)?.scrollIntoView({ behavior: "smooth" });
    });
  };

  // Puts the state of a page into its address, so that reloading or sending it shows the same.
  const setAddress = (values) => {
    const url = new URL(location.href);
    for (const [key, value] of Object.entries(values)) {
      if (value === "" || value === null || value === undefined) url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    history.replaceState(history.state, "", url);
  };

  // Brings new content into view when it lies outside; with a hash, the element it names, and only the first time.
  const reveal = (element, watch, hash) => {
    let done = hash === "";
    watch("value", () => {
      if (done) return;
      const target = hash ? element.querySelector(hash) : element;
      if (hash && target) done = true;
      target?.scrollIntoView({ block: hash ? "start" : "nearest", behavior: "smooth" });
    });
  };

  // A search field: its text is the component's value, and typing, pasting or clearing raises the event.
  const search = (element, props, trigger, watch, name, key) => {
    const field = element.querySelector("input");
    let waiting = null;
    field.value = props.value || "";
    watch("value", () => { if (field !== document.activeElement) field.value = props.value || ""; });
    field.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        props.value = field.value;
        if (key) setAddress({ [key]: field.value, page: "" });
        trigger(name, { text: field.value });
      }, 150);
    });
  };

  let vegaLoading = null;
  const loadVega = () => {
    vegaLoading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "/lab/vega.js";
      script.onload = resolve;
      script.onerror = () => reject(new Error("the chart library did not load"));
      document.head.append(script);
    });
    return vegaLoading;
  };

  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  // "$name" anywhere in a specification is the theme's colour --name.
  const withColours = (part) => {
    if (typeof part === "string") return part.startsWith("$") ? colour("--" + part.slice(1)) || part : part;
    if (Array.isArray(part)) return part.map(withColours);
    if (part && typeof part === "object") {
      return Object.fromEntries(Object.entries(part).map(([k, v]) => [k, k === "datasets" ? v : withColours(v)]));
    }
    return part;
  };

  // Small multiples share the width there is; everything else takes all of it.
  const fitted = (whole, width) => {
    const narrow = { ...whole.config, legend: { ...whole.config.legend, columns: 1 } };
    const spec = width < 480 ? { ...whole, config: narrow } : whole;
    if (spec.facet && typeof spec.spec.width !== "object") {
      const most = spec.columns || 1;
      const room = Number(spec.usermeta?.labelWidth || 60);
      const columns = Math.max(1, Math.min(most, Math.floor(width / 260)));
      const gap = Number(spec.spacing?.column ?? spec.spacing ?? 20);
      const each = Math.floor((width - room - (columns - 1) * gap - 28) / columns);
      return { ...spec, columns, spec: { ...spec.spec, width: Math.max(150, each) } };
    }
    return spec.width === "container" ? { ...spec, width: Math.max(Number(spec.usermeta?.leastWidth || 220), width - Number(spec.usermeta?.labelWidth || 70)) } : spec;
  };

  const chart = (element, props, trigger, watch, pick) => {
    const box = element.querySelector(".chart");
    let view = null, drawn = "", busy = false, again = false, drawnWidth = 0;
    const draw = async () => {
      if (busy) { again = true; return; }
      busy = true;
      try {
        const value = props.value;
        box.hidden = !(value && value.spec);
        if (box.hidden) { view?.finalize(); view = null; drawn = ""; box.replaceChildren(); return; }
        await loadVega();
        const width = box.clientWidth;
        if (!width) return;
        const key = JSON.stringify(value.spec) + isDark() + width;
        if (view && key === drawn) {
          for (const [name, rows] of Object.entries(value.data)) view.data(name, rows);
          await view.runAsync();
        } else {
          const spec = fitted(withColours({ ...value.spec, datasets: value.data }), width);
          const result = await vegaEmbed(box, spec, { actions: false, renderer: value.renderer || "svg", tooltip: { theme: isDark() ? "dark" : "light" } });
          view?.finalize();
          view = result.view;
          drawn = key;
          drawnWidth = width;
          box.setAttribute("role", "img");
          box.setAttribute("aria-label", value.label);
          // Its label stands for the whole picture, whose marks have no names; what overflows is scrolled by keys too.
          box.querySelector("svg")?.setAttribute("aria-hidden", "true");
          box.tabIndex = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight ? 0 : -1;
          box.dataset.drawn = String(Number(box.dataset.drawn || 0) + 1);
          if (pick) view.addEventListener("click", (_, item) => {
            if (item && item.datum && item.datum.pick) trigger(pick, { pick: item.datum.pick });
          });
        }
      } catch (error) {
        box.textContent = "This chart could not be drawn: " + error.message;
      } finally {
        busy = false;
        if (again) { again = false; draw(); }
      }
    };
    watch("value", draw);
    new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    new ResizeObserver(() => { if (Math.abs(box.clientWidth - drawnWidth) > 8) draw(); }).observe(box);
    draw();
  };

  window.roteLab = { toggleTheme, actions, setAddress, reveal, search, chart };
})();
