"""The Gradio theme: the palette of `static/style.css` for Gradio's own components, with fonts that come with Gradio."""

from __future__ import annotations

import gradio as gr

FONT = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
MONO = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))

# The stylesheet's custom properties switch with the theme, so that most values are the same in light and dark.
_BOTH = {
    "body_background_fill": "var(--bg)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--muted)",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--raised)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "border_color_accent_subdued": "var(--line-strong)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "link_text_color_hover": "var(--accent-strong)",
    "link_text_color_active": "var(--accent-strong)",
    "link_text_color_visited": "var(--accent)",
    "code_background_fill": "var(--raised)",
    "block_background_fill": "var(--surface)",
    "block_border_color": "var(--line)",
    "block_info_text_color": "var(--muted)",
    "block_label_background_fill": "var(--surface)",
    "block_label_border_color": "var(--line)",
    "block_label_text_color": "var(--muted)",
    "block_title_text_color": "var(--ink)",
    "panel_background_fill": "var(--surface)",
    "panel_border_color": "var(--line)",
    "accordion_text_color": "var(--ink)",
    "table_text_color": "var(--ink)",
    "table_border_color": "var(--line)",
    "table_even_background_fill": "var(--surface)",
    "table_odd_background_fill": "var(--bg)",
    "table_row_focus": "var(--accent-soft)",
    "input_background_fill": "var(--surface)",
    "input_background_fill_focus": "var(--surface)",
    "input_border_color": "var(--line-strong)",
    "input_border_color_focus": "var(--accent)",
    "input_placeholder_color": "var(--muted)",
    "checkbox_background_color": "var(--surface)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--line-strong)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "var(--surface)",
    "checkbox_label_background_fill_hover": "var(--raised)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)",
    "checkbox_label_border_color": "var(--line)",
    "checkbox_label_border_color_selected": "var(--accent)",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "error_background_fill": "var(--bad-soft)",
    "error_border_color": "var(--bad)",
    "error_text_color": "var(--bad)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "var(--accent)",
    "button_primary_text_color": "var(--on-accent)",
    "button_secondary_background_fill": "var(--surface)",
    "button_secondary_background_fill_hover": "var(--raised)",
    "button_secondary_border_color": "var(--line-strong)",
    "button_secondary_text_color": "var(--ink)",
}


def lab_theme() -> gr.themes.Base:
    """The lab's theme, light and dark."""
    theme = gr.themes.Base(font=[FONT, "system-ui", "sans-serif"], font_mono=[MONO, "ui-monospace", "monospace"])
    sizes = {
        "block_radius": "12px",
        "container_radius": "12px",
        "input_radius": "8px",
        "button_medium_radius": "8px",
        "button_small_radius": "8px",
        "button_large_radius": "8px",
        "block_shadow": "none",
        "block_shadow_dark": "none",
        "layout_gap": "14px",
        "slider_color": "var(--accent)",
        "slider_color_dark": "var(--accent)",
        "loader_color": "var(--accent)",
        "loader_color_dark": "var(--accent)",
    }
    dark = {f"{name}_dark": value for name, value in _BOTH.items()}
    theme.set(**_BOTH, **dark, **sizes)
    return theme
