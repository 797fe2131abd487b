"""The MCP gateway: every MAD's tools, the lab's runs and files, for any client of the Model Context Protocol."""
