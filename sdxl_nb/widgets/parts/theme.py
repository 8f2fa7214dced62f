"""How the form and the monitor look: one style sheet that takes its colours from JupyterLab's theme, light or dark."""

from ipywidgets import HTML

CSS = """
.sdxl-nb { max-width: 1040px; color: var(--jp-ui-font-color1, inherit); }
.sdxl-nb .sdxl-nb-row { align-items: flex-start; border-left: 3px solid transparent; padding: 1px 0 1px 6px; }
.sdxl-nb .sdxl-nb-row.sdxl-nb-changed { border-left-color: var(--jp-brand-color1, #1976d2); }
.sdxl-nb .sdxl-nb-row.sdxl-nb-wrong { border-left-color: var(--jp-error-color1, #d32f2f); }
.sdxl-nb :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2) !important; outline-offset: 1px; }
.sdxl-nb .widget-label { text-align: left; }
.sdxl-nb h2.sdxl-nb-step { font-size: 18px; line-height: 1.3; margin: 14px 0 6px; padding: 8px 0 0;
  border-top: 1px solid var(--jp-border-color2, #ccc); color: var(--jp-ui-font-color1, inherit); }
.sdxl-nb h2.sdxl-nb-step span { display: inline-block; width: 26px; height: 26px; line-height: 26px; margin-right: 4px;
  border-radius: 50%; text-align: center; font-size: 14px; color: var(--jp-layout-color0, #fff);
  background: var(--jp-ui-font-color1, #333); }
.sdxl-nb-hint { line-height: 1.35; font-size: var(--jp-ui-font-size1, 13px); padding: 5px 0 3px;
  color: var(--jp-ui-font-color2, #666); overflow-wrap: anywhere; }
.sdxl-nb-error { color: var(--jp-error-color1, #d32f2f); font-weight: 600; line-height: 1.4; }
.sdxl-nb-plan { border: 1px solid var(--jp-border-color2, #ccc); border-radius: 3px; padding: 6px 10px;
  line-height: 1.5; background: var(--jp-layout-color2, #eee); margin: 6px 2px; }
.sdxl-nb .widget-dropdown > select { appearance: auto; background-image: none; color-scheme: inherit; }
.sdxl-nb .sdxl-nb-plan.sdxl-nb-wrong { border-color: var(--jp-error-color1, #d32f2f); }
.sdxl-nb input::placeholder, .sdxl-nb textarea::placeholder { color: var(--jp-ui-font-color2, #666); opacity: 1;
  font-style: italic; }
.sdxl-nb .widget-textarea textarea { font-family: inherit; }
.sdxl-nb textarea.sdxl-nb-text, .sdxl-nb pre.sdxl-nb-log { box-sizing: border-box; width: 100%; margin: 0;
  padding: 6px 8px; font-family: var(--jp-code-font-family, monospace); font-size: 12px; line-height: 1.4;
  border-radius: 3px; border: 1px solid var(--jp-border-color2, #ccc); color: var(--jp-content-font-color1, inherit);
  background: var(--jp-cell-editor-background, transparent); }
.sdxl-nb pre.sdxl-nb-log { max-height: 200px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.sdxl-nb table.sdxl-nb-numbers { border-collapse: collapse; margin: 2px 0; }
.sdxl-nb table.sdxl-nb-numbers th { font-weight: 400; text-align: left; padding: 1px 22px 0 0; line-height: 1.3;
  color: var(--jp-ui-font-color2, #666); font-size: 12px; }
.sdxl-nb table.sdxl-nb-numbers td { text-align: left; padding: 0 22px 2px 0; font-size: 15px; line-height: 1.3;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.sdxl-nb-status { font-size: 16px; font-weight: 600; line-height: 1.5; }
.sdxl-nb-where { font-weight: 400; font-size: 12px; color: var(--jp-ui-font-color2, #666); overflow-wrap: anywhere; }
.sdxl-nb-caption { width: 160px; font-size: 12px; line-height: 1.3; color: var(--jp-ui-font-color2, #666);
  overflow-wrap: anywhere; }
.sdxl-nb-both .sdxl-nb-caption { width: 332px; }
.sdxl-nb .sdxl-nb-entry { border-top: 1px solid var(--jp-border-color2, #ccc); padding: 8px 2px; }
.sdxl-nb .sdxl-nb-entry > :nth-child(2) > .widget-html-content { line-height: 1.45; overflow-wrap: anywhere; }
.sdxl-nb-none { text-align: center; box-sizing: border-box; border: 1px dashed var(--jp-border-color2, #ccc);
  font-size: 12px; color: var(--jp-ui-font-color2, #666); }
.sdxl-nb-name { font-size: 15px; font-weight: 600; }
.sdxl-nb-apart { display: flex; flex-wrap: wrap; gap: 4px 6px; padding-top: 3px; }
.sdxl-nb-apart span { border: 1px solid var(--jp-border-color2, #ccc); border-radius: 3px; padding: 0 6px;
  font-size: 12px; line-height: 1.5; background: var(--jp-layout-color2, #eee); }
.sdxl-nb h3.sdxl-nb-between { font-size: 16px; margin: 12px 0 4px; color: var(--jp-ui-font-color1, inherit); }
.sdxl-nb table.sdxl-nb-settings { border-collapse: collapse; font-size: 13px; margin: 2px 0 6px; }
.sdxl-nb table.sdxl-nb-settings :is(th, td) { text-align: left; padding: 2px 18px 2px 0; line-height: 1.4;
  overflow-wrap: anywhere; }
.sdxl-nb table.sdxl-nb-settings th { font-weight: 600; border-bottom: 1px solid var(--jp-border-color2, #ccc); }
.sdxl-nb .progress, .sdxl-nb .widget-hprogress .progress { background: var(--jp-layout-color3, #ddd); }
"""


def style_sheet() -> HTML:
    """The style sheet as a child of a widget whose class is sdxl-nb."""
    sheet = HTML(f"<style>{CSS}</style>")
    sheet.layout.display = "none"
    return sheet
