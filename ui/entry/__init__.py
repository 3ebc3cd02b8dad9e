"""Where Streamlit begins. Beside `ui/pages` it would take the files there for pages of its own, and show them empty."""
