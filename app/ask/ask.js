// The Ask page: its form, its grid with folded groups, and the drawer with one answer.
"use strict";
(() => {
  // The facts and prompts that are offered are those of the chosen relation.
  const listed = (form) => {
    const at = form?.elements.relation?.selectedOptions[0]?.dataset.list;
    if (!at) return;
    form.elements.subject.setAttribute("list", "facts-" + at);
    const choice = form.querySelector("[data-fill]");
    choice.replaceChildren(choice.options[0], document.getElementById("prompts-" + at).content.cloneNode(true));
  };

  // A list of suggestions offers only what contains the field's text: a field that is entered shows all of them, and one
  // that is left as it was gets its text back.
  const offersAll = (element) => {
    const restore = (field) => { if (!field.value && field.dataset.before) field.value = field.dataset.before; };
    element.addEventListener("focusin", ({ target }) => {
      if (!target.matches("input[list]")) return;
      target.dataset.before = target.placeholder = target.value || target.placeholder;
      target.value = "";
    });
    element.addEventListener("focusout", ({ target }) => { if (target.matches("input[list]")) restore(target); });
    element.addEventListener("submit", (event) => event.target.querySelectorAll("input[list]").forEach(restore), true);
  };

  const form = (element, trigger, watch, name) => {
    offersAll(element);
    watch("value", () => listed(element.querySelector("form")));
    listed(element.querySelector("form"));
    element.addEventListener("submit", (event) => {
      event.preventDefault();
      const button = event.target.querySelector(".ask-button");
      if (button.getAttribute("aria-disabled") === "true") return;
      // A second press within a moment is the same question.
      button.setAttribute("aria-disabled", "true");
      setTimeout(() => button.removeAttribute("aria-disabled"), 700);
      trigger(name, { ...Object.fromEntries(new FormData(event.target)), act: "ask" });
    });
    element.addEventListener("keydown", (event) => {
      // While an input method composes Chinese or Japanese, Enter takes over what it offers.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || !event.target.matches("textarea")) return;
      event.preventDefault();
      event.target.form.requestSubmit();
    });
    element.addEventListener("change", (event) => {
      const { name: field, value } = event.target;
      if (field === "run") trigger(name, { act: "run", value, mode: event.target.form.elements.mode.value });
      if (field === "mode") trigger(name, { act: "mode", mode: value });
      if (field === "relation") listed(event.target.form);
      if (event.target.dataset.fill && value) event.target.form.elements[event.target.dataset.fill].value = value;
    });
    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-insert]");
      if (!button) return;
      const field = element.querySelector("textarea");
      const at = field.selectionEnd;
      let text = button.dataset.insert;
      if (!field.value.slice(0, at) || /\s$/.test(field.value.slice(0, at))) text = text.trimStart();
      field.setRangeText(text, field.selectionStart, at, "end");
      field.focus();
    });
  };

  const grid = (element, trigger, watch, name) => {
    roteLab.actions(element, trigger, name);
    // Which groups were opened or closed by hand, for as long as the same asking is shown.
    let folds = new Map(), shown = "";
    const show = (key, open) => {
      for (const rows of element.querySelectorAll("tbody[data-group]")) if (rows.dataset.group === key) rows.hidden = !open;
      for (const b of element.querySelectorAll("[data-fold]")) if (b.dataset.fold === key) b.setAttribute("aria-expanded", open);
    };
    const apply = () => {
      const view = element.querySelector("[data-view]");
      if (!view) return;
      const address = JSON.parse(view.dataset.view);
      if (address.asked !== shown) {
        folds = new Map();
        shown = address.asked;
        // On a phone the prompts stand one below the other: the first open group is enough to begin with.
        const open = element.querySelectorAll("tbody[data-group][data-open=yes]:not([data-group^=key])");
        if (matchMedia("(max-width: 700px)").matches) for (const rows of [...open].slice(1)) folds.set(rows.dataset.group, false);
      }
      roteLab.setAddress(address);
      for (const [key, open] of folds) show(key, open);
    };
    element.addEventListener("click", async (event) => {
      const fold = event.target.closest("[data-fold]");
      if (fold) {
        const open = fold.getAttribute("aria-expanded") !== "true";
        folds.set(fold.dataset.fold, open);
        show(fold.dataset.fold, open);
      }
      const copy = event.target.closest("[data-copy]");
      if (copy) {
        try { await navigator.clipboard.writeText(location.href); copy.textContent = "Copied"; }
        catch { copy.textContent = "Copy it from the address bar"; }
      }
    });
    element.addEventListener("change", (event) => {
      const pick = event.target.closest("[data-pick]");
      if (pick?.value) trigger(name, { act: pick.dataset.pick, value: pick.value });
    });
    watch("value", apply);
    apply();
  };

  const drawer = (element, trigger, watch, name) => {
    roteLab.actions(element, trigger, name);
    let place = "", from = null;
    const settle = () => {
      const open = element.querySelector(".drawer");
      const now = open?.dataset.place || "";
      if (now && now !== place) {
        from = document.activeElement;
        open.focus({ preventScroll: true });
      }
      if (!now && place) {
        // Back to the cell that was opened; the grid may have been drawn anew since.
        const cell = document.querySelector(`.cell[data-value="${CSS.escape(place)}"]`) || from;
        cell?.focus?.({ preventScroll: true });
      }
      place = now;
      document.body.classList.toggle("with-drawer", Boolean(now));
    };
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && place && element.isConnected) trigger(name, { act: "close" });
    });
    watch("value", settle);
    settle();
  };

  window.roteLabAsk = { form, grid, drawer };
})();
