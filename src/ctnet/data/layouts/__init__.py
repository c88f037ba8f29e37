"""How data sets lie on disk: one file a layout, and the table of them."""
