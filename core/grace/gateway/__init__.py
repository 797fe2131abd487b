"""The MCP gateway: every MAD's tools for any MCP client, through the door like anybody else."""
