"""The Gradio theme: the palette of `static/style.css` for Gradio's own components, with fonts that come with Gradio."""

from __future__ import annotations

import gradio as gr

FONT = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
MONO = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))

# A colour of the stylesheet, and what of Gradio's has it. It switches with the theme, so that light and dark are alike.
_PALETTE = {
    "bg": "body_background_fill table_odd_background_fill",
    "ink": (
        "body_text_color block_title_text_color accordion_text_color table_text_color checkbox_label_text_color "
        "checkbox_label_text_color_selected button_secondary_text_color"
    ),
    "muted": "body_text_color_subdued block_info_text_color block_label_text_color input_placeholder_color",
    "surface": (
        "background_fill_primary block_background_fill block_label_background_fill panel_background_fill "
        "table_even_background_fill input_background_fill input_background_fill_focus checkbox_background_color "
        "checkbox_label_background_fill button_secondary_background_fill"
    ),
    "raised": (
        "background_fill_secondary code_background_fill checkbox_label_background_fill_hover "
        "button_secondary_background_fill_hover"
    ),
    "line": (
        "border_color_primary block_border_color block_label_border_color panel_border_color table_border_color "
        "checkbox_label_border_color"
    ),
    "accent": (
        "border_color_accent link_text_color link_text_color_visited input_border_color_focus "
        "checkbox_background_color_selected checkbox_border_color_selected checkbox_label_border_color_selected "
        "button_primary_background_fill button_primary_border_color slider_color loader_color"
    ),
    "line-strong": "border_color_accent_subdued input_border_color checkbox_border_color button_secondary_border_color",
    "accent-soft": "color_accent_soft table_row_focus checkbox_label_background_fill_selected",
    "accent-strong": "link_text_color_hover link_text_color_active button_primary_background_fill_hover",
    "bad-soft": "error_background_fill",
    "bad": "error_border_color error_text_color",
    "on-accent": "button_primary_text_color",
}


def lab_theme() -> gr.themes.Base:
    """The lab's theme, light and dark."""
    theme = gr.themes.Base(font=[FONT, "system-ui", "sans-serif"], font_mono=[MONO, "ui-monospace", "monospace"])
    sizes = {"block_radius": "12px", "container_radius": "12px", "input_radius": "8px", "layout_gap": "14px"}
    sizes |= {f"button_{size}_radius": "8px" for size in ("small", "medium", "large")}
    both = {name: f"var(--{colour})" for colour, names in _PALETTE.items() for name in names.split()}
    both["block_shadow"] = "none"
    theme.set(**both, **{f"{name}_dark": value for name, value in both.items()}, **sizes)
    return theme
