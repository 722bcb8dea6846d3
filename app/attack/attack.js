// The Attack page: its state in the address, the slider over attack facts, forms, keys, and the presenter's view.
"use strict";
(() => {
  if (window.roteLabAttack) return;
  const typing = "input, select, textarea, [contenteditable]";

  // Clicks go to the server one after another, each with the state that the one before it left: Gradio drops an event
  // that comes while another of its kind is under way.
  const LONGEST = 8000;
  const waiting = [];
  let count = 0, under = null;
  const pump = () => {
    if (under || !waiting.length) return;
    const { trigger, name, data } = waiting.shift();
    under = setTimeout(release, LONGEST);
    trigger(name, { ...data, number_of_click: String(++count) });
  };
  const release = () => { clearTimeout(under); under = null; pump(); };
  const inTurn = (trigger) => (name, data) => { waiting.push({ trigger, name, data }); pump(); };
  const done = (element, watch) => watch("value", () => {
    if (element.querySelector("[data-done]")?.dataset.done === String(count)) setTimeout(release);
  });

  // What every part does: clicks, selects and forms become events; focus and what was typed survive a redraw.
  const part = (element, now, watch, name) => {
    const trigger = inTurn(now);
    roteLab.actions(element, trigger, name);
    const kept = new Map();
    let focused = "";
    const key = (target) => target?.id ? "#" + CSS.escape(target.id)
      : target?.dataset?.act ? `[data-act="${CSS.escape(target.dataset.act)}"][data-value="${CSS.escape(target.dataset.value || "")}"]`
      : target?.dataset?.pick ? `[data-pick="${CSS.escape(target.dataset.pick)}"][data-name="${CSS.escape(target.dataset.name || "")}"]` : "";
    element.addEventListener("focusin", ({ target }) => { focused = key(target); });
    element.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget) focused = ""; });
    element.addEventListener("submit", (event) => {
      event.preventDefault();
      const form = event.target;
      const told = { ...Object.fromEntries(new FormData(form)), act: form.dataset.form };
      // The same pressed again within a moment is meant once.
      const again = JSON.stringify(told);
      if (form.dataset.told === again && Date.now() - Number(form.dataset.sent) < 700) return;
      Object.assign(form.dataset, { told: again, sent: Date.now() });
      kept.clear();
      trigger(name, told);
    });
    element.addEventListener("change", ({ target }) => {
      if (target.matches("select[data-pick]")) trigger(name, { act: target.dataset.pick, name: target.dataset.name || "", value: target.value });
      if (target.id === "size-slider") {
        const facts = target.dataset.sizes.split(",")[target.value];
        roteLab.setAddress({ facts });
        trigger(name, { act: "facts", value: facts });
      }
      // Choosing from the list of people shows the person at once.
      if (target.id === "person-typed" && [...target.list.options].some((o) => o.value === target.value)) target.form.requestSubmit();
    });
    element.addEventListener("input", ({ target }) => {
      if (target.matches("[data-keep]")) kept.set(target.name, target.value);
      if (target.dataset.shows) shown(target);
      if (target.id === "size-slider") slide(target);
    });
    element.addEventListener("click", ({ target }) => {
      const tick = target.closest("[data-size-index]");
      if (!tick) return;
      const slider = element.querySelector("#size-slider");
      slider.value = tick.dataset.sizeIndex;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      slider.dispatchEvent(new Event("change", { bubbles: true }));
    });
    const shown = (field) => {
      element.querySelector("#" + CSS.escape(field.dataset.shows)).value = field.value;
      for (const button of element.querySelectorAll(`[data-with="${CSS.escape(field.name)}"]`)) button.dataset.number = field.value;
    };
    const slide = (slider) => {
      const facts = slider.dataset.sizes.split(",")[slider.value];
      for (const pair of element.querySelectorAll("[data-size]")) pair.hidden = pair.dataset.size !== facts;
      element.querySelector("#size-shown").value = facts;
      slider.setAttribute("aria-valuetext", facts + " attack facts");
    };
    const settle = () => {
      for (const field of element.querySelectorAll("[data-keep]")) if (kept.has(field.name)) field.value = kept.get(field.name);
      for (const field of element.querySelectorAll("[data-shows]")) shown(field);
      if (focused && (document.activeElement === document.body || !document.activeElement)) element.querySelector(focused)?.focus({ preventScroll: true });
    };
    watch("value", settle);
    settle();
  };

  const top = (element, now, watch, name) => {
    const trigger = inTurn(now);
    part(element, now, watch, name);
    let view = "";
    const apply = () => {
      const head = element.querySelector("[data-view]");
      if (!head) return;
      const address = JSON.parse(head.dataset.view);
      roteLab.setAddress(address);
      const changed = view !== (address.view || "story") + address.step;
      view = (address.view || "story") + address.step;
      document.body.classList.toggle("presenting", address.view === "present");
      const steps = element.querySelector(".story-steps"), here = element.querySelector("[aria-current=step]");
      if (steps && here) steps.scrollLeft = here.offsetLeft - steps.offsetLeft - (steps.clientWidth - here.offsetWidth) / 2;
      document.body.classList.toggle("measuring", address.view === "grid");
      if (changed && address.view !== "grid") scrollTo({ top: 0 });
    };
    document.addEventListener("keydown", (event) => {
      if (!element.isConnected || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (event.target.closest?.(typing) || document.querySelector("dialog[open]")) return;
      const go = { ArrowRight: "next", ArrowLeft: "back", PageDown: "next", PageUp: "back" }[event.key];
      if (go) {
        const button = document.querySelector(`.story-foot [data-dir=${go}]:not([disabled])`);
        if (button) { event.preventDefault(); button.click(); }
      }
      const presenting = document.body.classList.contains("presenting");
      if (event.key === "p" || event.key === "P") trigger(name, { act: "view", value: presenting ? "story" : "present" });
      if (event.key === "Escape" && presenting && !document.querySelector(".attack-drawer")) trigger(name, { act: "view", value: "story" });
    });
    watch("value", apply);
    apply();
  };

  const drawer = (element, now, watch, name) => {
    const trigger = inTurn(now);
    let place = "", from = "";
    roteLab.actions(element, trigger, name);
    document.addEventListener("click", ({ target }) => {
      const opener = target.closest?.("[data-act=open]");
      if (opener) from = `[data-act=open][data-value="${CSS.escape(opener.dataset.value)}"]`;
    }, true);
    const settle = () => {
      const open = element.querySelector(".drawer");
      const now = open?.dataset.place || "";
      if (now && now !== place) open.focus({ preventScroll: true });
      if (!now && place && from) document.querySelector(from)?.focus({ preventScroll: true });
      place = now;
      document.body.classList.toggle("with-drawer", Boolean(now));
    };
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && place && element.isConnected) { event.preventDefault(); trigger(name, { act: "close" }); }
    });
    watch("value", settle);
    settle();
  };

  window.roteLabAttack = { part, top, drawer, done };
})();
