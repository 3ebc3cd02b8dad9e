"""What people watch and steer a federation with: the page (Streamlit), and `floe status`, `floe log`, `floe diag`.

Reads the log, never writes it; commands go the way of `floe round`, `floe devices` and `floe invite`.
"""
