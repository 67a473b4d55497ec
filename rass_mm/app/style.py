"""Look of the page: fonts of the system, few colours, a layout for wide and narrow windows."""

from rass_mm.app.toolkit import gradio

FONTS = ('system-ui', '-apple-system', 'Segoe UI', 'Roboto', 'Helvetica Neue', 'Arial', 'sans-serif')
MONO = ('ui-monospace', 'SFMono-Regular', 'Menlo', 'Consolas', 'monospace')

CSS = """
.gradio-container {width: 100% !important; max-width: 1320px !important; margin: 0 auto !important}
.gradio-container > .main {width: 100%; padding: 20px 16px !important}
#message, #message > *, #folder-message, #folder-message > * {padding: 0 !important; overflow: visible !important}
#attention img {max-height: 420px; object-fit: contain}
footer {display: none !important}
#title h1 {font-size: 1.5rem; font-weight: 650; margin: 0}
#title p {color: var(--body-text-color-subdued); margin: 4px 0 0}
#examples {padding: 0; border: 0 !important}
#examples .grid-wrap {height: auto; min-height: 0; max-height: none; padding: 0; overflow: visible}
#examples .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)); padding: 2px; gap: 8px}
#examples .thumbnail-item {width: 100%; height: auto; aspect-ratio: 1}
.hint, .hint p {color: var(--body-text-color-subdued); font-size: 0.85rem}
.notice {min-height: 44px; padding: 10px 12px; border-radius: 8px; border: 1px solid var(--border-color-primary);
         overflow-wrap: anywhere; font-size: 0.9rem}
.notice.failed {border-color: #b42318; background: #fef3f2; color: #7a1a12}
.notice ul {margin: 6px 0 0; padding-left: 18px}
#shares {padding: 0 !important; overflow: visible !important}
table.shares, table.shares tr {border: 0 !important}
table.shares {width: 100%; border-collapse: collapse; font-size: 0.9rem; margin: 4px 0 !important}
table.shares :is(th, td) {border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
                          text-align: left; font-weight: 400; padding: 5px 10px 5px 0 !important}
table.shares tr:first-child th {color: var(--body-text-color-subdued)}
table.shares td {width: 40%}
table.shares :is(td, th[scope="row"]) {white-space: nowrap}
table.shares i {display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px;
                vertical-align: -1px; border: 1px solid rgba(0, 0, 0, 0.25)}
table.shares .bar {display: inline-block; height: 10px; max-width: calc(100% - 64px); min-width: 1px;
                   border-radius: 3px; margin-right: 8px; border: 1px solid rgba(0, 0, 0, 0.15)}
table.shares .share {font-variant-numeric: tabular-nums}
.dark .notice.failed {background: #3a1613; color: #fecdca}
"""


def theme() -> gradio.themes.Base:
    """Returns the theme of the page. It needs no web fonts."""
    return gradio.themes.Base(
        primary_hue='teal', neutral_hue='slate', radius_size='md', font=list(FONTS), font_mono=list(MONO)
    ).set(
        block_border_width='1px',
        block_shadow='none',
        button_primary_background_fill='*primary_700',
        button_primary_background_fill_hover='*primary_600',
        button_primary_text_color='white',
    )
