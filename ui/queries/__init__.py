"""What is asked of the log: SQL as constants, rows as frozen dataclasses. No Streamlit, no pandas."""
