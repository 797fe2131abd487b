"""The ports a MAD of this process holds, and the same objects behind the gate: here every permission is checked.

One identity, one set of ports. Nothing below this room asks who is calling; nothing above it may call the services
directly on behalf of a MAD. The order is house.md's: capability and policy, then journal *started*, act, *outcome*.
"""
